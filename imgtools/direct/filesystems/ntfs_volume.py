"""An NTFS volume over dissect.ntfs: records by reference, attributes as streams, cleanness.

Source: ntfs-3g's layout.h and logfile.c.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any

from imgtools.direct.filesystems.base import Extents, Memory, read_exactly
from imgtools.direct.streams import Adapter, BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError

LOG_FILE, VOLUME = 2, 3
VOLUME_INFORMATION, DATA = 0x70, 0x80
COMPRESSED, ENCRYPTED, SPARSE = 0xFF, 0x4000, 0x8000
IN_USE = 1
ATTRIBUTE_LIST = 0x20
MAX_LIST = 256 << 10  # what NTFS allows
DIRTY = 1
NO_CLIENT = 0xFFFF
LOG_CLEAN = 2
MAX_RUNS = 300_000
MAX_COMPRESSED = 4 << 30
MAX_SIZE = 1 << 62


class Volume:
    """The boot sector, the MFT, and attributes as streams of bytes."""

    def __init__(self, source: BlockStream) -> None:
        self.source = source
        raw = read_exactly(source, 0, 512, "the NTFS boot sector")
        sector, per_cluster = struct.unpack_from("<HB", raw, 11)
        sectors = struct.unpack_from("<Q", raw, 40)[0]
        record, index = struct.unpack_from("<bxxxb", raw, 64)
        size = per_cluster if per_cluster <= 128 else 1 << 256 - per_cluster
        self.cluster_size = sector * size
        self.record_size = 1 << -record if record < 0 else record * self.cluster_size
        self.clusters = sectors // max(1, size)
        sane = (
            raw[3:11] == b"NTFS    "
            and sector in (512, 1024, 2048, 4096)
            and self.cluster_size in {1 << shift for shift in range(9, 22)}
            and self.record_size in (512, 1024, 2048, 4096)
            and index > -31
            and 0 < self.clusters * self.cluster_size <= source.size
        )
        if not sane:
            raise DamagedError("the NTFS boot sector is inconsistent")
        self._ntfs = self._open()
        self.record = lru_cache(4096)(self._record)

    def _open(self) -> Any:
        from dissect.ntfs.ntfs import NTFS

        # Empty streams, so that it does not look for $Secure and the USN journal.
        return NTFS(self.source, sds=io.BytesIO(), usnjrnl=io.BytesIO())

    def _record(self, reference: int) -> Any:
        """The file record that a reference (number and sequence) means."""
        number, sequence = reference & 0xFFFFFFFFFFFF, reference >> 48
        if number * self.record_size >= self._ntfs.mft.fh.size:
            raise DamagedError(f"NTFS file record {number} does not exist")
        record = self._ntfs.mft.get(number)
        header = record.header
        if not header.Flags & IN_USE or (sequence and header.SequenceNumber != sequence):
            raise DamagedError(f"NTFS file record {number} is not in use")
        for holder in record.attributes[ATTRIBUTE_LIST]:
            self._check_list(record, number, holder.header.data())
        return record

    def _check_list(self, record: Any, number: int, raw: bytes) -> None:
        """Every attribute that the list names is there, in a record that belongs to this file.

        dissect believes the list: a lost or reused extension record would go unnoticed.
        """
        if len(raw) > MAX_LIST:
            raise DamagedError("an NTFS attribute list is too large")
        offset = 0
        while offset < len(raw):
            if offset + 26 > len(raw):
                raise DamagedError("an NTFS attribute list is cut short")
            kind, length, name_length, name_at, vcn, place = struct.unpack_from(
                "<IHBBQQ", raw, offset
            )
            if length < 26 or length % 8 or offset + length > len(raw):
                raise DamagedError("an NTFS attribute list is malformed")
            start = offset + name_at
            name = raw[start : start + 2 * name_length].decode("utf-16-le")
            self._check_extension(number, place)
            parts = [one.header for one in self._attributes(record, kind, name)]
            if not any(one.resident or one.lowest_vcn == vcn for one in parts):
                raise DamagedError("an NTFS attribute is not where its list says")
            offset += length

    def _check_extension(self, number: int, place: int) -> None:
        other, sequence = place & 0xFFFFFFFFFFFF, place >> 48
        if other == number:
            return
        header = self._ntfs.mft.get(other).header
        base = header.BaseFileRecordSegment
        owner = base.SegmentNumberLowPart | base.SegmentNumberHighPart << 32
        if not header.Flags & IN_USE or header.SequenceNumber != sequence or owner != number:
            raise DamagedError(f"NTFS file record {other} does not belong to {number}")

    def _attributes(self, record: Any, kind: int, name: str) -> list[Any]:
        return [one for one in record.attributes[kind] if one.header.name == name]

    def sizes(self, record: Any, kind: int, name: str) -> tuple[int, int]:
        """Size and allocated size of an attribute; (0, 0) if there is none."""
        found = self._attributes(record, kind, name)
        if not found:
            return 0, 0
        header = self._first(found)
        if header.resident:
            return header.size, (header.size + 7) & ~7
        form = header.header.Form.Nonresident
        if header.flags & (COMPRESSED | SPARSE):
            return form.FileSize, form.TotalAllocated
        return form.FileSize, form.AllocatedLength

    def _first(self, found: list[Any]) -> Any:
        for attribute in found:
            if attribute.header.resident or attribute.header.lowest_vcn == 0:
                return attribute.header
        raise DamagedError("an NTFS attribute lacks its first part")

    def content(self, record: Any, kind: int, name: str) -> BlockStream:
        """An attribute's content."""
        found = self._attributes(record, kind, name)
        if not found:
            raise DamagedError("an NTFS file lacks an attribute")
        header = self._first(found)
        if header.resident:
            if len(found) != 1:
                raise DamagedError("an NTFS attribute is there twice")
            data = header.data()
            if len(data) != header.size:
                raise DamagedError("an NTFS attribute is cut short")
            return Memory(data)
        if header.flags & ENCRYPTED:
            raise DirectUnsupportedError("an encrypted NTFS file")
        form = header.header.Form.Nonresident
        size, valid = form.FileSize, form.ValidDataLength
        if not 0 <= valid <= size <= form.AllocatedLength < MAX_SIZE:
            raise DamagedError("an NTFS attribute's sizes are inconsistent")
        runs = self._runs(found, form.AllocatedLength)
        if header.flags & COMPRESSED:
            return self._compressed(header, runs, size, valid)
        return self._plain(runs, size, valid)

    def _runs(self, found: list[Any], allocated: int) -> list[tuple[int | None, int]]:
        """The data runs of all parts, checked to join up and to lie on the volume."""
        runs: list[tuple[int | None, int]] = []
        vcn = 0
        for attribute in sorted(found, key=lambda one: one.header.lowest_vcn):
            header = attribute.header
            if header.lowest_vcn != vcn:
                raise DamagedError("an NTFS attribute's parts do not join")
            for start, count in header.dataruns():
                outside = start is not None and not 0 <= start <= self.clusters - count
                if count <= 0 or outside:
                    raise DamagedError("an NTFS data run lies outside the volume")
                runs.append((start, count))
                vcn += count
            if len(runs) > MAX_RUNS:
                raise DirectUnsupportedError("an NTFS file in too many pieces")
            if header.highest_vcn not in (vcn - 1, 0):
                raise DamagedError("an NTFS attribute's runs are incomplete")
        if vcn * self.cluster_size != allocated:
            raise DamagedError("an NTFS attribute's runs are incomplete")
        return runs

    def _plain(self, runs: list[tuple[int | None, int]], size: int, valid: int) -> BlockStream:
        """Data runs as a stream; beyond the valid length everything is zero."""
        extents = []
        position = 0
        for start, count in runs:
            length = min(count * self.cluster_size, valid - position)
            if start is not None and length > 0:
                extents.append((position, length, start * self.cluster_size))
            position += count * self.cluster_size
        return Extents(self.source, size, extents)

    def _compressed(
        self, header: Any, runs: list[tuple[int | None, int]], size: int, valid: int
    ) -> BlockStream:
        from dissect.ntfs.stream import CompressedRunlistStream

        unit = header.compression_unit
        if unit != 4 or valid != size or size > MAX_COMPRESSED:
            raise DirectUnsupportedError("an unusually compressed NTFS file")
        stream = CompressedRunlistStream(self.source, runs, size, self.cluster_size, unit)
        return Adapter(stream, size)


def require_clean(volume: Volume) -> None:
    """Raise UncleanError if the volume is marked dirty or its log needs replay."""
    information = volume.content(volume.record(VOLUME), VOLUME_INFORMATION, "").read_at(0, 12)
    if struct.unpack_from("<H", information, 10)[0] & DIRTY:
        raise UncleanError("the NTFS volume is marked dirty")
    log = volume.content(volume.record(LOG_FILE), DATA, "")
    first = log.read_at(0, 4096)
    if first == b"\xff" * 4096:
        return
    pages = [first]
    page_size = struct.unpack_from("<I", first, 16)[0]
    if 512 <= page_size <= 65536:
        pages.append(log.read_at(page_size, 4096))
    states = [_restart(page) for page in pages if page[:4] == b"RSTR" and len(page) == 4096]
    newest = max((lsn for lsn, _ in states), default=0)
    if not states or not all(clean for lsn, clean in states if lsn == newest):
        raise UncleanError("the NTFS log needs replay")


def _restart(page: bytes) -> tuple[int, bool]:
    """(LSN, clean) of a restart page."""
    area = struct.unpack_from("<H", page, 24)[0]
    lsn, _, _, in_use, flags = struct.unpack_from("<QHHHH", page, area)
    return lsn, in_use == NO_CLIENT or bool(flags & LOG_CLEAN)
