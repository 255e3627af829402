"""Build a template: a stock appliance with our helper in it, booted once and saved.

Everything is made in a folder of its own beside the templates, tried there by real launches, and
renamed into place when all of it is on the disk; whatever ends the build leaves nothing behind.
One build at a time: a second one waits and then finds the template made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shlex
import shutil
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imgtools.appliance import preflight
from imgtools.appliance.instant import packages, template
from imgtools.appliance.instant.hypervisor import (
    FOLDER,
    GO_SIZE,
    MARK,
    Launch,
    NotOursError,
    fill,
    parse,
    shape,
)
from imgtools.appliance.instant.machine import machine_words, memory_size
from imgtools.errors import (
    ApplianceError,
    ApplianceSpaceError,
    MissingToolError,
    ToolError,
)
from imgtools.process import Child, find_tool, run, running

SPACE = 1600 << 20
"""Bytes that a build may take for a while; the template keeps about 1 GiB of them."""
SUPERMIN_TIMEOUT = 300.0
BOOT_TIMEOUT = 180.0
SETTLE_SECONDS = 3.0
COMPILERS = ("cc", "gcc", "clang", "tcc")
_HERE = Path(__file__).parent
_GUEST = _HERE / "guest"
_PARTIAL = ".partial-"
_RULES = "/usr/lib/udev/rules.d"
_RESUMING = "/run/imgtools-resuming"
_LABELLED = 'TEST=="/run/imgtools-labels", '
# File, text, and what stands in its place.
_RULE_CHANGES = (
    # Asking a disk for its serial number costs the start of a program, and libguestfs uses the
    # answer for labels only.
    (
        "60-persistent-storage.rules",
        'KERNEL=="sd*[!0-9]|sr*", ENV{ID_SERIAL}!="?*", IMPORT{program}="scsi_id',
        _LABELLED + 'KERNEL=="sd*[!0-9]|sr*", ENV{ID_SERIAL}!="?*", IMPORT{program}="scsi_id',
    ),
    # A booting appliance sees its disks by "change" (udevadm trigger), a resumed one by "add", and
    # these two rules tell them apart: volume groups and IMSM arrays come up later, in the scan.
    (
        "69-lvm.rules",
        'ACTION!="add", GOTO="lvm_end"',
        f'TEST=="{_RESUMING}", GOTO="lvm_end"\nACTION!="add", GOTO="lvm_end"',
    ),
    (
        "64-md-raid-assembly.rules",
        'ENV{ID_FS_TYPE}=="isw_raid_member", ACTION!="change"',
        f'TEST!="{_RESUMING}", ENV{{ID_FS_TYPE}}=="isw_raid_member", ACTION!="change"',
    ),
)

Talk = Callable[[str], None]


def build(
    parent: Path,
    facts: dict[str, Any],
    *,
    record_launch: Callable[[Path, Path], list[str]],
    measure: Callable[[template.Template | None], float],
    talk: Talk,
) -> template.Template:
    """Build the template for ``facts`` in ``parent``.

    ``record_launch(appliance, hv)`` makes libguestfs launch with both and returns the words that
    the program ``hv`` was given; ``measure`` launches a template (None: a stock appliance) and
    returns the seconds.  Raises ApplianceError and its kin, MissingToolError, ToolError.
    """
    compiler = find_compiler()
    for tool in ("supermin", "debugfs", "fallocate"):
        find_tool(tool)
    preflight.check_folder(parent, SPACE, "IMGTOOLS_CACHE_DIR")
    with _partial_folder(parent) as folder:
        _fill_folder(folder, facts, compiler, record_launch, talk)
        _measure(folder, facts, measure, talk)
        final = parent / template.template_name(facts)
        _sync(folder)
        with contextlib.suppress(FileNotFoundError):
            template.remove(final)
        folder.rename(final)
        _sync_one(parent)
    return template.read_template(final)


def find_compiler() -> str:
    """A C compiler.  Raises MissingToolError."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return found
    raise MissingToolError(
        "building the instant appliance needs a C compiler, and none is installed",
        hint="apt-get install --no-install-recommends gcc libc6-dev",
    )


@contextlib.contextmanager
def locked(parent: Path, talk: Talk) -> Iterator[None]:
    """Hold the lock of builds; waits for another build."""
    with (parent / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            talk("another build is running: waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _partial_folder(parent: Path) -> Iterator[Path]:
    for stale in parent.glob(f"{_PARTIAL}*"):  # the lock is ours: whoever made it was killed
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=parent))
    try:
        yield folder
    except OSError as error:
        raise ApplianceSpaceError(
            f"{parent}: {error.strerror or error}", hint="set IMGTOOLS_CACHE_DIR to another folder"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill_folder(
    folder: Path,
    facts: dict[str, Any],
    compiler: str,
    record_launch: Callable[[Path, Path], list[str]],
    talk: Talk,
) -> None:
    supermin = Path(facts["supermin"][0][0]).parent
    names = packages.closure(supermin)
    database, digest = packages.database_stat(), packages.digest(names)
    talk("building the appliance")
    _build_appliance(supermin, folder)
    _put_helper(folder, compiler)
    launch = _recorded(folder, facts["qemu"][0], record_launch)
    machine = [word.replace(str(folder), FOLDER) for word in machine_words(launch)]
    talk("booting it")
    _boot_and_save(folder, facts["qemu"][0], machine)
    run(["fallocate", "--dig-holes", str(folder / "ram")], timeout=120)
    _write_hypervisor(folder)
    record = {
        "identity": facts,
        "firmware": _firmware(facts["qemu"][0]),
        "packages": {"names": names, "database": database, "digest": digest},
        "qemu": facts["qemu"][0],
        "memory": memory_size(launch),
        "machine": machine,
        "shape": shape(launch, str(folder)),
        "built": int(time.time()),
        "seconds": {"instant": 0.0, "stock": None},
        **_describe_files(folder),
    }
    _write_record(folder, record)


# --- the appliance -------------------------------------------------------------------------------


def _build_appliance(supermin: Path, folder: Path) -> None:
    target = folder / "appliance"
    try:
        run(
            [
                *("supermin", "--build", "--copy-kernel", "-f", "ext2"),
                *("--host-cpu", os.uname().machine, str(supermin), "-o", str(target)),
            ],
            timeout=SUPERMIN_TIMEOUT,
        )
    except ToolError as error:
        kind = ApplianceSpaceError if "No space left" in error.message else ApplianceError
        raise kind(f"supermin cannot build the appliance: {error.message}") from error
    for name in ("kernel", "initrd", "root"):
        (target / name).rename(folder / name)
    target.rmdir()
    (folder / "README.fixed").write_text(
        "An appliance of imgtools: see docs/instant-appliance.md.  Do not change anything here.\n",
        encoding="utf-8",
    )


def _put_helper(folder: Path, compiler: str) -> None:
    """Compile the helper and put it in the places of /init, guestfsd and udevadm in the root."""
    helper = folder / "helper"
    options = ["-O2", "-static"] if "tcc" not in compiler else ["-static"]
    try:
        run([compiler, *options, "-o", str(helper), str(_GUEST / "helper.c")], timeout=120)
    except ToolError as error:
        raise MissingToolError(
            f"the guest's helper cannot be compiled: {error.message}",
            hint="apt-get install --no-install-recommends gcc libc6-dev",
        ) from error
    root = folder / "root"
    commands = _rule_commands(root, folder)
    for path, kept in (
        ("/init", "/init.stock"),
        ("/usr/sbin/guestfsd", "/usr/sbin/guestfsd.real"),
        ("/usr/bin/udevadm", "/usr/bin/udevadm.real"),
    ):
        commands += [f"ln {path} {kept}", f"unlink {path}", f"write {helper} {path}"]
        commands.append(f"set_inode_field {path} mode 0100755")
    commands += [
        f"write {helper} /usr/sbin/imgtools-helper",
        "set_inode_field /usr/sbin/imgtools-helper mode 0100755",
        f"write {_GUEST / 'init.sh'} /init.trimmed",
        "set_inode_field /init.trimmed mode 0100755",
    ]
    _debugfs(root, commands, write=True)
    helper.unlink()
    for change in _RULE_CHANGES:
        (folder / change[0]).unlink()


def _rule_commands(root: Path, folder: Path) -> list[str]:
    """Write the changed rules to ``folder``; the commands that put them in the root."""
    commands = []
    for name, old, new in _RULE_CHANGES:
        path = f"{_RULES}/{name}"
        text = _debugfs(root, [f"cat {path}"], write=False)
        if text.count(old) != 1:
            raise ApplianceError(f"the appliance's {path} is not what imgtools knows")
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
        commands += [f"rm {path}", f"write {folder / name} {path}"]
    return commands


def _debugfs(root: Path, commands: list[str], *, write: bool) -> str:
    """Run debugfs(8) commands; it exits with 0 whatever happens, and complains on stderr."""
    script = "".join(f"{command}\n" for command in commands).encode()
    mode = ["-w"] if write else []
    with tempfile.NamedTemporaryFile(prefix="imgtools-") as stream:
        stream.write(script)
        stream.flush()
        done = run(["debugfs", *mode, "-f", stream.name, str(root)])
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if complaints:
        raise ApplianceError(f"the appliance cannot be changed: {complaints[0]}")
    return done.stdout.decode(errors="surrogateescape").partition("\n")[2]


# --- the machine -------------------------------------------------------------------------------


def _recorded(folder: Path, qemu: str, record_launch: Callable[[Path, Path], list[str]]) -> Launch:
    """libguestfs's own launch command line, with this appliance."""
    recorder = folder / "recorder"
    words = folder / "words"
    recorder.write_text(
        '#!/bin/sh\ncase " $* " in\n'
        f"""*" -append "*) printf '%s\\0' "$@" >{shlex.quote(str(words))}; exit 1 ;;\n"""
        f'*) exec {shlex.quote(qemu)} "$@" ;;\nesac\n',
        encoding="utf-8",
    )
    recorder.chmod(0o700)
    found = record_launch(folder, recorder)
    recorder.unlink()
    words.unlink(missing_ok=True)
    try:
        return parse(found)
    except NotOursError as error:
        raise ApplianceError(
            f"this libguestfs starts qemu in a way that imgtools does not know: {error}"
        ) from error


def _boot_and_save(folder: Path, qemu: str, machine: list[str]) -> None:
    """Boot the machine until the helper waits in it, and save it."""
    from imgtools.appliance.instant.monitor import Monitor

    go = folder / "go"
    go.write_bytes(b"wait\n".ljust(GO_SIZE, b"\0"))
    with tempfile.TemporaryDirectory(prefix="imgtools-") as sockets:
        channel, control = Path(sockets) / "channel", Path(sockets) / "monitor"
        words = [
            *(qemu, *fill(machine, folder=str(folder), resume=False, go=str(go))),
            *("-chardev", f"socket,path={channel},id=channel0"),
            *("-qmp", f"unix:{control},server=on,wait=off"),
        ]
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.bind(str(channel))
            daemon.listen(1)
            with running(words) as child:
                _wait_until_ready(child)
                time.sleep(SETTLE_SECONDS)  # for what the kernel still does behind the scenes
                monitor = Monitor(control)
                try:
                    monitor.save_devices(folder / "state")
                    monitor.quit()
                finally:
                    monitor.close()
                child.wait(60)
    go.unlink()


def _wait_until_ready(child: Child) -> None:
    assert child.stdout is not None
    deadline = time.monotonic() + BOOT_TIMEOUT
    log = b""
    ready = f"{MARK}ready".encode()
    while ready not in log:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
            raise ApplianceError(
                f"the appliance did not come up within {BOOT_TIMEOUT:g} s: {_tail(log)}"
            )
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            raise ApplianceError(f"qemu ended while the appliance booted: {_tail(log)}")
        log += data


def _tail(log: bytes) -> str:
    lines = [line.strip() for line in log.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _firmware(qemu: str) -> list[Any]:
    """The files of qemu's data folders that a machine of this kind has in its memory."""
    folders = run([qemu, "-L", "help"]).stdout.decode(errors="replace").split("\n")
    names = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")
    paths = [
        Path(os.path.normpath(folder)) / name for folder in folders if folder for name in names
    ]
    return [template.file_stat(path) for path in paths if path.exists()]


# --- the folder --------------------------------------------------------------------------------


def _write_hypervisor(folder: Path) -> None:
    shutil.copyfile(_HERE / "hypervisor.py", folder / "hypervisor.py")
    python = os.path.realpath(sys.executable)
    program = folder / "qemu"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(python)} -IS "${{0%/*}}/hypervisor.py" "$@"\n',
        encoding="utf-8",
    )


def _describe_files(folder: Path) -> dict[str, Any]:
    """Make every file read-only and note its size, time and content."""
    files, digests = {}, {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o500 if path.name == "qemu" else 0o400)
        found = path.stat()
        files[path.name] = [found.st_size, found.st_mtime_ns]
        with path.open("rb") as stream:
            digests[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    state = zlib.crc32((folder / "state").read_bytes())
    return {"files": files, "sha256": digests, "state_crc32": state}


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    path = folder / template.RECORD
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _measure(
    folder: Path,
    facts: dict[str, Any],
    measure: Callable[[template.Template | None], float],
    talk: Talk,
) -> None:
    """Launch the template, which proves it; under KVM a stock one too, which may be faster."""
    made = template.read_template(folder)
    talk("trying it")
    measure(made)  # the first launch also fills libguestfs's cache of what this qemu can do
    made.record["seconds"]["instant"] = round(measure(made), 3)
    if facts["accelerator"] == "KVM":
        measure(None)
        made.record["seconds"]["stock"] = round(measure(None), 3)
    _write_record(folder, made.record)
    (folder / template.RECORD).chmod(0o400)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_faults(found: template.Template) -> list[str]:
    """The files of a template whose content is not what was built (reads all of it)."""
    faults = []
    for name, wanted in found.record["sha256"].items():
        with (found.folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted:
                faults.append(name)
    return faults
