"""Packages of Arch: ``/var/lib/pacman/local/NAME-VERSION/desc``.

Format: blocks of ``%KEY%``, values one a line, and an empty line (pacman's lib/libalpm/be_local.c).
As in libguestfs only the first value of a block counts, and name, version and architecture
are required.
"""

from __future__ import annotations

from imgtools.errors import GuestOperationError
from imgtools.guest.packages.application import (
    MAX_APPLICATIONS,
    Application,
    Collection,
    split_version,
    text,
)
from imgtools.guest.tree import GuestTree, show

LOCAL = b"/var/lib/pacman/local"
MAX_DESC = 1 << 16


def read_pacman(tree: GuestTree, found: Collection) -> bool:
    """Collect the packages of the guest; False if it has no pacman database."""
    if not tree.is_dir(LOCAL):
        return False
    folders = [entry.name for entry in tree.scandir(LOCAL) if entry.kind in ("d", "u")]
    if len(folders) > MAX_APPLICATIONS:
        found.complain(f"{len(folders)} packages; {MAX_APPLICATIONS} are listed")
    for name in folders[:MAX_APPLICATIONS]:
        path = LOCAL + b"/" + name + b"/desc"
        try:
            application = parse_desc(tree.read(path, limit=MAX_DESC))
        except GuestOperationError as error:
            found.complain(f"a package is left out: {error.message}")
            continue
        if application is None:
            found.complain(f"a package is left out: {show(path)} is damaged")
        else:
            found.add(application)
    return True


def parse_desc(data: bytes) -> Application | None:
    """The package a ``desc`` file describes; None if a required field is missing or bad."""
    values: dict[bytes, bytes] = {}
    key = b""
    for line in data.split(b"\n"):
        if key and line:
            values[key] = line
            key = b""
        elif line.startswith(b"%") and line.endswith(b"%"):
            key = line
        else:
            key = b""
    name, version, arch = (values.get(k) for k in (b"%NAME%", b"%VERSION%", b"%ARCH%"))
    parts = split_version(version) if version else None
    if not name or not arch or parts is None or not parts[1] or not parts[2]:
        return None
    return Application(
        name=text(name),
        epoch=parts[0],
        version=text(parts[1]),
        release=text(parts[2]),
        arch=text(arch),
        publisher=text(values.get(b"%PACKAGER%", b"")),
        url=text(values.get(b"%URL%", b"")),
        source_package=text(values.get(b"%BASE%", b"")),
        description=text(values.get(b"%DESC%", b"")),
    )
