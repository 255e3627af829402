"""Give the guest's files to programs of this host: what is mounted in the appliance, by FUSE.

A kernel follows links on this host: an absolute one of the guest would lead to a file of the host.
libfuse makes those relative (its module ``subdir`` with ``rellinks``; fuse(8)), and a guest with a
relative one that climbs above its root is refused.  Programs, setuid bits and devices of the guest
are not for this host either (noexec, nosuid, nodev).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import CallError, Library
from imgtools.appliance.translate import first_line
from imgtools.errors import GuestOperationError, RefusedError
from imgtools.process import run

MAX_LINKS = 40  # Linux's own limit: MAXSYMLINKS
MAX_STEPS = 3_000_000
"""Names that all links together may be followed by: of a real guest they are some thousands."""
_MAX_UNPACKED = 64 << 20
_MAX_ANSWER = 3 << 20  # of a message's 4 MiB
_OPTIONS = b"noexec,nosuid,nodev,modules=subdir,subdir=/,rellinks"
_PATIENCE = 10.0  # seconds in which what the program left behind may end
# guestfs_mount_local_argv of guestfs.h.
_HAS_OPTIONS = 1 << 1
# What a folder of another filesystem is mounted on is walked, too.
_LINKS = "cd /sysroot && find . -type l -printf '%P\\0%l\\0' | gzip -1 | base64 -w0"


_TOO_MANY = "the guest has too many symbolic links to be sure where they lead"


class _Arguments(ctypes.Structure):
    _fields_ = [
        ("bitmask", ctypes.c_uint64),
        ("readonly", ctypes.c_int),
        ("options", ctypes.c_char_p),
        ("cachetimeout", ctypes.c_int),
        ("debugcalls", ctypes.c_int),
    ]


@contextlib.contextmanager
def exported(appliance: Appliance, folder: Path) -> Iterator[None]:
    """Everything that is mounted in the appliance, on an empty folder of this host.

    Raises RefusedError for a guest whose links would lead out of the folder, GuestOperationError
    if FUSE cannot mount it, or a program still uses it when the block has ended.
    """
    _refuse_climbing(_links(appliance))
    arguments = _Arguments(bitmask=_HAS_OPTIONS, options=_OPTIONS)
    place = os.fsencode(folder)
    try:
        appliance.call(
            lambda lib: lib.status("mount_local_argv", place, ctypes.byref(arguments)),
            what="sharing its files",
        )
    except CallError as error:
        raise GuestOperationError(
            f"{folder}: the guest cannot be mounted by FUSE: {first_line(error.message)}"
        ) from error
    busy: list[str] = []
    with appliance.beside(_serve, partial(_end, folder, busy)):
        yield
    if busy:
        raise GuestOperationError(f"{folder}: cannot be unmounted: {busy[0]}")


def _serve(library: Library) -> int:
    return library.status("mount_local_run")


def _end(folder: Path, busy: list[str]) -> None:
    """Unmount the folder; what keeps it busy after a while is said in ``busy``."""
    program = shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount3"
    last = time.monotonic() + _PATIENCE
    while (done := run([program, "-u", str(folder)], check=False)).returncode != 0:
        if time.monotonic() > last:
            busy.append(done.last_error_line())
            run([program, "-u", "-z", str(folder)], check=False)
            return
        time.sleep(0.2)


def _links(appliance: Appliance) -> dict[bytes, bytes]:
    """Every symbolic link of what is mounted, by its path from the root on (no leading ``/``)."""
    answer = appliance.shell(f"{_LINKS} | head -c {_MAX_ANSWER}", what="a look at its links")
    unpack = zlib.decompressobj(wbits=31)
    try:
        text = unpack.decompress(base64.b64decode(answer), _MAX_UNPACKED)
    except (ValueError, zlib.error):
        text = b""
    if not unpack.eof:
        raise RefusedError(_TOO_MANY)
    words = text.split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def _refuse_climbing(links: Mapping[bytes, bytes]) -> None:
    steps = 0
    for path, target in links.items():
        if b".." not in target:
            continue  # where it leads through others, those are looked at
        climbing, more = climbs(links, path)
        steps += more
        if steps > MAX_STEPS:
            raise RefusedError(_TOO_MANY)
        if climbing:
            shown = b"/%s -> %s" % (path, target)
            raise RefusedError(
                "a link of the guest leads above its root, on this host to files of the host: "
                + shown.decode("utf-8", errors="surrogateescape"),
                hint="make it lead to where it does in the guest, or remove it (imgtools rm)",
            )


def climbs(links: Mapping[bytes, bytes], path: bytes) -> tuple[bool, int]:
    """True if following the link ``path`` goes above the root on the way, and the names it took.

    In the guest the root's parent is the root; below a folder of the host it is a folder of that.
    ``links`` are all links by their paths, without a leading ``/``.
    """
    at = path.split(b"/")[:-1]
    todo = links[path].split(b"/")[::-1]
    if links[path].startswith(b"/"):
        at = []
    followed = steps = 0
    while todo:
        steps += 1 + len(at) // 8  # a long path costs more
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not at:
                return True, steps
            at.pop()
            continue
        target = links.get(b"/".join([*at, name]))
        if target is None:
            at.append(name)
            continue
        followed += 1
        if followed > MAX_LINKS:
            break  # ELOOP, here as there
        if target.startswith(b"/"):
            at = []
        todo += target.split(b"/")[::-1]
    return False, steps
