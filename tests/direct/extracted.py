"""What a copy or an archive of the fixtures' tree must hold, against what was put there."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

from fixtures.contents import plain_files, unix_files
from fixtures.tree import Entry

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.LNKTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
ENTRIES = (*plain_files(), *unix_files())


def names_in(folder: Path) -> list[str]:
    """The names in a folder of this host, sorted."""
    return sorted(path.name for path in folder.iterdir())


def assert_holds_the_tree(folder: Path, *, owners: bool = True, devices: bool = True) -> None:
    """Every entry of ``data`` is in ``folder`` with its content and metadata."""
    for entry in ENTRIES:
        special = entry.kind in (tarfile.CHRTYPE, tarfile.BLKTYPE)
        if special and not devices:
            continue
        _assert_same(bytes(folder) + b"/" + entry.path.removeprefix(b"data/"), entry, owners)


def _assert_same(path: bytes, entry: Entry, owners: bool) -> None:
    found = os.lstat(path)
    assert stat.S_IFMT(found.st_mode) == _KINDS[entry.kind], path
    if entry.kind == tarfile.SYMTYPE:
        assert os.readlink(path) == entry.target.encode()  # noqa: PTH115 (bytes)
        assert found.st_mtime == entry.mtime
        return
    if entry.kind == tarfile.LNKTYPE:
        first = path.rpartition(b"/")[0] + b"/" + entry.target.encode().rpartition(b"/")[2]
        assert os.lstat(first).st_ino == found.st_ino
        return
    mode = entry.mode if owners else entry.mode & 0o1777
    assert stat.S_IMODE(found.st_mode) == mode, path
    assert found.st_mtime_ns == entry.mtime * 10**9, path
    if owners:
        assert (found.st_uid, found.st_gid) == entry.owner, path
    if entry.kind == tarfile.REGTYPE and (entry.mode or owners):
        with open(path, "rb") as stream:  # noqa: PTH123 (bytes)
            assert stream.read() == entry.data, path
    if entry.kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == entry.device
