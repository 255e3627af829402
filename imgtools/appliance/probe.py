"""Does KVM work here?  Find out by running a guest for a few milliseconds, and remember.

/dev/kvm that exists and opens proves nothing: inside some virtual machines qemu aborts on an MSR,
or the first KVM_RUN fails.  So qemu is started with a firmware of our own, whose only instructions
write to the debug-exit port: an exit status of 33 means that guest code really ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtools.config import Config
from imgtools.errors import ToolError, ToolTimeoutError
from imgtools.model import Notice
from imgtools.process import run

PROBE_TIMEOUT = 10.0
CACHE_NAME = "kvm.json"
_VERSION = 1
_KVM = Path("/dev/kvm")
# isa-debug-exit ends qemu with (value << 1) | 1.
_EXIT_VALUE = 0x10
_EXIT_STATUS = (_EXIT_VALUE << 1) | 1
_BIOS_SIZE = 64 << 10
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
    """Run a guest of a few instructions under ``accel``.  Costs about 0.1 s."""
    try:
        if platform.machine() in ("x86_64", "i686"):
            return _try_firmware(hv, accel)
        return _try_monitor(hv, accel)
    except ToolTimeoutError:
        return KvmAnswer(works=False, reason="qemu started but its guest never ran")
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
    """mov al, value; out 0xf4, al; hlt; at the reset vector, 16 bytes below the end."""
    code = bytes([0xB0, _EXIT_VALUE, 0xE6, 0xF4, 0xF4])
    return bytes(_BIOS_SIZE - 16) + code.ljust(16, b"\xf4")


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
