"""A short name for the program that libguestfs is to start as its qemu.

libguestfs (lib/command.c, ``add_string``, seen in 1.48 to 1.54) joins the shell command with which
it asks qemu for KVM in a buffer of 256 bytes that it only enlarges once it is full already: a
program whose path is about 90 to 140 bytes long is written over the end, and the process is
aborted by malloc, or worse goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imgtools.appliance import preflight

LONGEST = 80
"""Bytes of a path that leave room: the rest of the command takes 170 of the 256."""
_NEEDS_QUOTING = b'$`\\"'


@contextlib.contextmanager
def short_name(program: Path) -> Iterator[Path]:
    """``program``, or while the context lasts a short path of a script that becomes it.

    Raises ApplianceError when no folder with a short name can be written to.
    """
    if _is_short(program):
        yield program
        return
    folder = _make_folder()
    try:
        script = folder / "qemu"
        script.write_bytes(b'#!/bin/sh\nexec %b "$@"\n' % os.fsencode(shlex.quote(str(program))))
        script.chmod(0o700)
        yield script
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_short(path: Path) -> bool:
    name = os.fsencode(path)
    return len(name) + sum(name.count(byte) for byte in _NEEDS_QUOTING) <= LONGEST


def _make_folder() -> Path:
    wanted = preflight.places().temporary
    failure = wanted, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    # Only for a folder of our own in it.
    for where in (wanted, Path("/tmp"), Path("/var/tmp"), Path("/run")):  # noqa: S108
        if _is_short(where / "imgtools-12345678" / "qemu"):
            try:
                return Path(tempfile.mkdtemp(prefix="imgtools-", dir=where))
            except OSError as error:
                failure = where, error
    raise preflight.folder_error(*failure)
