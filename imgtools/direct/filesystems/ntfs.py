"""NTFS as ntfs-3g shows it, which the appliance mounts it with (no options: mode 0777, owner 0).

dissect.ntfs gives file records, their attributes and data runs; every run is checked here, and
directories are walked as the B+trees they are (dissect also lists what freed index blocks still
hold).  What ntfs-3g makes of a volume: its src/ntfs-3g.c and libntfs-3g.
"""

from __future__ import annotations

import stat as _stat
import struct
from collections.abc import Iterator
from typing import Any

from imgtools.direct.filesystems.base import Entry, Memory, NodeTree, read_exactly
from imgtools.direct.filesystems.ntfs_index import index_entries
from imgtools.direct.filesystems.ntfs_volume import Volume, require_clean
from imgtools.direct.streams import BlockStream
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    GuestFileNotFoundError,
    GuestOperationError,
    UncleanError,
)
from imgtools.model.files import Stat, StatVFS

ROOT, BITMAP, FIRST_USER = 5, 6, 16
STANDARD_INFORMATION, DATA, INDEX_ROOT, INDEX_ALLOCATION = 0x10, 0x80, 0x90, 0xA0
MFT_BITMAP = 0xB0
FLAG_HIDDEN, FLAG_SYSTEM, FLAG_REPARSE, FLAG_ENCRYPTED = 0x2, 0x4, 0x400, 0x4000
NAMESPACE_DOS = 2
EPOCH = 116444736000000000  # 1970 in units of 100 ns since 1601
MAX_XATTR = 1 << 16
MAX_BITMAP = 256 << 20


class NtfsTree(NodeTree[int]):
    """An NTFS filesystem; nodes are MFT references.  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._volume = Volume(source)
        super().__init__("the NTFS filesystem", ROOT)
        require_clean(self._volume)
        root = self._volume.record(ROOT)
        if not root.is_dir():
            raise DamagedError("the root of the NTFS filesystem is no directory")
        self._refuse_hibernated()

    def _refuse_hibernated(self) -> None:
        for name, _, node in self._node_entries(ROOT):
            if name.lower() == b"hiberfil.sys":
                head = self._volume.content(self._volume.record(node), DATA, "").read_at(0, 4)
                if head.lower() == b"hibr":
                    raise UncleanError("Windows is hibernated on this NTFS")

    def _number(self, node: int) -> int:
        return node & 0xFFFFFFFFFFFF

    def _walk(self, path: bytes) -> int:
        try:
            return super()._walk(path)
        except GuestFileNotFoundError:
            name = path.rpartition(b"/")[2]
            if b"~" in name or name.startswith(b"$"):
                raise DirectUnsupportedError("an NTFS lookup of a short or system name") from None
            raise

    # -- nodes --------------------------------------------------------------------------------

    def _facts(self, record: Any) -> tuple[int, ...]:
        """Times (modified, changed, accessed) in 100 ns, and the file's flags."""
        raw = self._volume.content(record, STANDARD_INFORMATION, "").read_at(0, 36)
        _, modified, changed, accessed, flags = struct.unpack("<QQQQI", raw)
        return modified, changed, accessed, flags

    def _node_stat(self, node: int) -> Stat:
        volume = self._volume
        record = volume.record(node)
        modified, changed, accessed, flags = self._facts(record)
        if flags & FLAG_REPARSE:
            raise DirectUnsupportedError("an NTFS reparse point")
        if flags & FLAG_ENCRYPTED and not record.is_dir():
            raise DirectUnsupportedError("an encrypted NTFS file")
        if record.is_dir():
            mode, links = _stat.S_IFDIR | 0o777, 1
            size, allocated = volume.sizes(record, INDEX_ALLOCATION, "$I30")
        else:
            mode, links = _stat.S_IFREG | 0o777, record.header.ReferenceCount
            size, allocated = volume.sizes(record, DATA, "")
            if flags & FLAG_SYSTEM:
                self._refuse_special(record, size, flags)
        return Stat(
            ino=self._number(node),
            mode=mode,
            nlink=links,
            uid=0,
            gid=0,
            size=size,
            blksize=4096,
            blocks=-(-allocated // 512),
            atime_ns=(accessed - EPOCH) * 100,
            mtime_ns=(modified - EPOCH) * 100,
            ctime_ns=(changed - EPOCH) * 100,
        )

    def _refuse_special(self, record: Any, size: int, flags: int) -> None:
        """Interix made devices, FIFOs and links of system files; ntfs-3g shows them as such."""
        empty = size <= 1 and not flags & FLAG_HIDDEN
        if empty or self._volume.content(record, DATA, "").read_at(0, 4) == b"Intx":
            raise DirectUnsupportedError("a special file on NTFS")

    def _node_content(self, node: int, found: Stat) -> BlockStream:
        record = self._volume.record(node)
        return self._volume.content(record, DATA, "") if found.size else Memory(b"")

    def _node_readlink(self, node: int) -> bytes:  # noqa: ARG002
        raise GuestOperationError("not a symbolic link")

    def _node_xattrs(self, node: int) -> dict[bytes, bytes]:
        """Alternate data streams are shown as ``user.NAME``."""
        record = self._volume.record(node)
        names = {attribute.header.name for attribute in record.attributes[DATA]} - {""}
        result = {}
        for name in names:
            content = self._volume.content(record, DATA, name)
            if content.size > MAX_XATTR:
                raise DirectUnsupportedError("a large alternate data stream on NTFS")
            result[b"user." + name.encode()] = content.read_at(0, content.size)
        return result

    def _node_entries(self, node: int) -> Iterator[Entry[int]]:
        record = self._volume.record(node)
        for reference, key in index_entries(self._volume, record):
            if len(key) < 66 or len(key) < 66 + key[64] * 2:
                raise DamagedError("an NTFS directory entry is cut short")
            if key[65] == NAMESPACE_DOS or self._number(reference) < FIRST_USER:
                continue
            try:
                name = key[66 : 66 + key[64] * 2].decode("utf-16-le").encode()
            except UnicodeDecodeError:
                raise DirectUnsupportedError("an NTFS name with a lone surrogate") from None
            flags = struct.unpack_from("<I", key, 56)[0]
            yield name, "d" if flags & 0x10000000 else "u", reference

    # -- space --------------------------------------------------------------------------------

    def _space(self) -> StatVFS:
        """As ntfs_fuse_statfs: files that could still be made count as inodes."""
        volume = self._volume
        bitmap = volume.content(volume.record(BITMAP), DATA, "")
        free = _zero_bits(bitmap)
        mft = volume.record(0)
        records = volume.content(mft, MFT_BITMAP, "")
        _, allocated = volume.sizes(mft, MFT_BITMAP, "")
        shift = volume.cluster_size.bit_length() - volume.record_size.bit_length()
        possible = free << shift if shift >= 0 else free >> -shift
        left = possible + _zero_bits(records) + (allocated - records.size) * 8
        return StatVFS(
            bsize=volume.cluster_size,
            frsize=volume.cluster_size,
            blocks=volume.clusters,
            bfree=free,
            bavail=free,
            files=allocated * 8 + possible,
            ffree=left,
            favail=left,
        )


def _zero_bits(bitmap: BlockStream) -> int:
    if bitmap.size > MAX_BITMAP:
        raise DirectUnsupportedError("an NTFS bitmap that is too large to count")
    used = 0
    for at in range(0, bitmap.size, 1 << 20):
        size = min(1 << 20, bitmap.size - at)
        data = read_exactly(bitmap, at, size, "an NTFS bitmap")
        used += int.from_bytes(data, "little").bit_count()
    return bitmap.size * 8 - used
