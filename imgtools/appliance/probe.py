"""Does KVM work here?  Find out by running a guest for a few milliseconds, and remember.

/dev/kvm that exists and opens proves nothing: inside some virtual machines qemu aborts on an MSR,
the first KVM_RUN fails, or KVM emulates every single instruction of the guest (some 1 us each), by
which no Linux comes up within minutes.  So qemu is started with a firmware of our own, which counts
down in 32-bit mode and then writes to the debug-exit port: an exit status of 33 in good time means
that guest code really ran, on the processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtools.config import Config
from imgtools.errors import ToolError, ToolTimeoutError
from imgtools.model.notices import Notice
from imgtools.process import run

PROBE_TIMEOUT = 5.0
CACHE_NAME = "kvm.json"
_VERSION = 2
_KVM = Path("/dev/kvm")
# isa-debug-exit ends qemu with (value << 1) | 1.
_EXIT_VALUE = 0x10
_EXIT_STATUS = (_EXIT_VALUE << 1) | 1
_BIOS_SIZE = 64 << 10
_BIOS_BASE = (4 << 30) - _BIOS_SIZE
_ROUNDS = 10_000_000  # 10 ms on a processor, 0.1 s under TCG, half a minute emulated by KVM
_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-m", "64")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmAnswer:
    """``works``, else ``reason`` in a few words; ``remembered`` if it came from the cache."""

    works: bool
    reason: str = ""
    remembered: bool = False


def kvm_works(hv: str, config: Config, *, fresh: bool = False) -> tuple[KvmAnswer, list[Notice]]:
    """Tell whether the qemu ``hv`` runs guests under KVM; ``fresh`` asks again.

    The notice comes with the first refusal only; an answer from the cache is silent.
    """
    if not _KVM.exists():
        return KvmAnswer(works=False, reason="there is no /dev/kvm"), []
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return KvmAnswer(works=False, reason="/dev/kvm may not be opened by this user"), []
    path = config.cache_path() / CACHE_NAME
    key = _key(hv)
    if not fresh and (known := _recall(path, key)) is not None:
        return known, []
    answer = try_kvm(hv)
    saved = _remember(path, key, answer)
    if answer.works:
        return answer, []
    where = f"; remembered in {path}" if saved else ""
    message = f"KVM does not work here ({answer.reason}): using TCG, slower{where}"
    return answer, [Notice(code="appliance.kvm-broken", message=message)]


def try_kvm(hv: str, accel: str = "kvm") -> KvmAnswer:
    """Run a guest that counts down under ``accel``.  Costs about 0.1 s."""
    try:
        if platform.machine() in ("x86_64", "i686"):
            return _try_firmware(hv, accel)
        return _try_monitor(hv, accel)
    except ToolTimeoutError:
        return KvmAnswer(works=False, reason="its guest did not run, or far too slowly")
    except (ToolError, OSError) as error:
        return KvmAnswer(works=False, reason=str(error))


def _try_firmware(hv: str, accel: str) -> KvmAnswer:
    descriptor = os.memfd_create("imgtools-probe")
    try:
        os.write(descriptor, _firmware())
        done = run(
            [
                *(hv, *_BARE, "-no-reboot", "-machine", f"pc,accel={accel}", "-cpu", "max"),
                *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"),
                *("-bios", f"/proc/self/fd/{descriptor}"),
            ],
            timeout=PROBE_TIMEOUT,
            check=False,
            pass_fds=(descriptor,),
        )
    finally:
        os.close(descriptor)
    if done.returncode == _EXIT_STATUS:
        return KvmAnswer(works=True)
    return KvmAnswer(works=False, reason=_reason(done.stderr, done.returncode, hv))


def _firmware() -> bytes:
    """Switch to protected mode, count down, leave through the debug-exit port.

    At reset the processor is in real mode with CS based at the last 64 KiB below 4 GiB, 16 bytes
    before the end (Intel SDM volume 3, "Processor Management and Initialization").
    """
    rom = bytearray(b"\xf4" * _BIOS_SIZE)  # hlt

    def place(offset: int, *parts: bytes) -> None:
        code = b"".join(parts)
        rom[offset : offset + len(code)] = code

    # No descriptor, flat code, flat data; both marked as accessed, for a ROM cannot be marked.
    place(0, struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF))
    place(0x20, struct.pack("<HI", 23, _BIOS_BASE))
    place(
        0x40,
        b"\xfa",  # cli
        b"\x66\x2e\x0f\x01\x16\x20\x00",  # lgdt cs:[0x20]
        b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # mov eax, cr0; or al, 1; mov cr0, eax
        b"\x66\xea" + struct.pack("<IH", _BIOS_BASE + 0x80, 8),  # jmp 8:0x80
    )
    place(
        0x80,
        b"\xb9" + struct.pack("<I", _ROUNDS),  # mov ecx, rounds
        b"\x49\x75\xfd",  # dec ecx; jnz to the dec
        bytes([0xB0, _EXIT_VALUE, 0xE6, 0xF4]),  # mov al, value; out 0xf4, al
    )
    place(_BIOS_SIZE - 16, b"\xe9\x4d\x00")  # jmp 0x40, by wrapping around
    return bytes(rom)


def _try_monitor(hv: str, accel: str) -> KvmAnswer:
    commands = b'{"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"quit"}'
    machine = "s390-ccw-virtio" if platform.machine() == "s390x" else "virt"
    if platform.machine().startswith("ppc"):
        machine = "pseries"
    done = run(
        [
            *(hv, *_BARE, "-qmp", "stdio", "-machine", f"{machine},accel={accel}"),
            *("-cpu", "host" if accel == "kvm" else "max"),
        ],
        timeout=PROBE_TIMEOUT,
        check=False,
        stdin=commands,
    )
    if done.returncode == 0 and b'"return"' in done.stdout:
        return KvmAnswer(works=True)
    return KvmAnswer(works=False, reason=_reason(done.stderr, done.returncode, hv))


def _reason(stderr: str, returncode: int, hv: str) -> str:
    """The first meaningful line of qemu's complaint, short enough for one line of talk."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in lines:
        if "warning" not in line.lower():
            return line.removeprefix(f"{Path(hv).name}: ").removeprefix("error: ")[:160]
    if returncode < 0:
        return f"qemu was ended by signal {-returncode}"
    return f"qemu ended with status {returncode}"


def _key(hv: str) -> dict[str, Any]:
    """What the answer depends on: kernel, processor, qemu's binary, the device and who asks."""
    uname = os.uname()
    binary = Path(hv).resolve()
    device = _KVM.stat()
    try:
        found = binary.stat()
        identity = [str(binary), found.st_size, found.st_mtime_ns]
    except OSError:
        identity = [str(binary), 0, 0]
    return {
        "version": _VERSION,
        "kernel": f"{uname.release} {uname.version}",
        "processor": _processor(),
        "qemu": identity,
        "device": [device.st_rdev, device.st_mode, device.st_uid, device.st_gid, os.geteuid()],
    }


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _recall(path: Path, key: Mapping[str, Any]) -> KvmAnswer | None:
    try:
        stored = json.loads(path.read_bytes())
        if stored["key"] != key:
            return None
        return KvmAnswer(works=bool(stored["works"]), reason=str(stored["reason"]), remembered=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, key: Mapping[str, Any], answer: KvmAnswer) -> bool:
    """Store the answer; False if the cache folder cannot be written, which is no error."""
    document = {"key": key, "works": answer.works, "reason": answer.reason}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".kvm-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(document, stream)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return False
    return True
