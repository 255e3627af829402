"""Vet the formats with little to them: QED, qcow version 1, Parallels and LUKS containers.

Sources: docs/interop/qed_spec.rst, docs/interop/parallels.rst and block/qcow.c of qemu; the LUKS
On-Disk Format specifications 1.2.3 and 2 (LUKS2).
"""

from __future__ import annotations

import struct

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import LUKS, PARALLELS, QCOW, QED
from imgtools.image.source import Source

MAX_NAME = 1023

_QED_FEATURES = {0: "backing file", 1: "needs check", 2: "raw backing file"}
_PARALLELS_OPEN = 0x746F6E59


def vet_qed(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a QED image."""
    raw = source.read(0, 64, "the end of the QED header")
    if raw[:4] != QED:
        raise ImageError(f"{source.path}: not a QED image (no signature)")
    cluster, table, header_clusters = struct.unpack("<III", raw[4:16])
    features, _compat, _auto, l1_offset, size = struct.unpack("<5Q", raw[16:56])
    name_offset, name_length = struct.unpack("<II", raw[56:64])
    problems: list[Problem] = []

    def bad(code: str, message: str, *, fatal: bool = True) -> None:
        problems.append(Problem(code=f"qed.{code}", message=message, fatal=fatal))

    if not 1 << 12 <= cluster <= 1 << 26 or cluster & (cluster - 1):
        raise ImageError(f"{source.path}: damaged QED header: clusters of {cluster} bytes")
    if table not in (1, 2, 4, 8, 16):
        raise ImageError(f"{source.path}: damaged QED header: tables of {table} clusters")
    entries = table * cluster // 8
    if features >> 3:
        bad("feature", "needs features that nobody knows")
    if size % 512 or size > entries * entries * cluster:
        bad("size", f"the virtual size of {size} bytes is beyond what its tables can address")
    if l1_offset % cluster or not l1_offset or l1_offset + table * cluster > source.size:
        bad("truncated", f"truncated: its L1 table at {l1_offset} is beyond the end of the file")
    if features & 2:
        bad("dirty", "it was not closed cleanly (qemu-img check)", fatal=False)
    backing = None
    if features & 1:
        if name_length > MAX_NAME or name_offset + name_length > header_clusters * cluster:
            bad("backing", "the backing file's name is outside the header")
        else:
            backing = source.read(name_offset, name_length, "its backing file's name")
    return ImageHeader(
        path=source.path,
        format="qed",
        stated=stated,
        file_size=source.size,
        virtual_size=size,
        identity=source.identity,
        cluster_size=cluster,
        backing_file=backing or None,
        backing_format="raw" if features & 4 else None,
        dirty=bool(features & 2),
        features=tuple(name for bit, name in _QED_FEATURES.items() if features >> bit & 1),
        problems=tuple(problems),
    )


def vet_qcow(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a qcow image of version 1."""
    raw = source.read(0, 48, "the end of the qcow header")
    if raw[:8] != QCOW:
        raise ImageError(f"{source.path}: not a qcow image of version 1 (no signature)")
    name_offset, name_length, _mtime, size = struct.unpack(">QIIQ", raw[8:32])
    cluster_bits, l2_bits = raw[32], raw[33]
    crypt, l1_offset = struct.unpack(">IQ", raw[36:48])
    if not 9 <= cluster_bits <= 16 or not 6 <= l2_bits <= 13:
        raise ImageError(f"{source.path}: damaged qcow header: clusters of 2^{cluster_bits} bytes")
    problems: list[Problem] = []
    shift = cluster_bits + l2_bits
    l1_bytes = (size + (1 << shift) - 1 >> shift) * 8
    if l1_bytes > 0x7FFF_FFFF:
        message = f"the virtual size of {size} bytes is beyond what qcow can address"
        problems.append(Problem(code="qcow.size", message=message))
    elif l1_offset + l1_bytes > source.size:
        message = "truncated: its L1 table is beyond the end of the file"
        problems.append(Problem(code="qcow.truncated", message=message))
    backing = None
    if name_offset and name_length > MAX_NAME:
        message = "the backing file's name is too long"
        problems.append(Problem(code="qcow.backing", message=message))
    elif name_offset:
        backing = source.read(name_offset, name_length, "its backing file's name")
    return ImageHeader(
        path=source.path,
        format="qcow",
        stated=stated,
        file_size=source.size,
        virtual_size=size,
        identity=source.identity,
        version=1,
        cluster_size=1 << cluster_bits,
        backing_file=backing or None,
        encryption="aes" if crypt else None,
        problems=tuple(problems),
    )


def vet_parallels(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a Parallels image."""
    raw = source.read(0, 64, "the end of the Parallels header")
    if raw[:16] not in PARALLELS:
        raise ImageError(f"{source.path}: not a Parallels image (no signature)")
    version, _heads, _cylinders, tracks, entries = struct.unpack("<5I", raw[16:36])
    sectors, in_use, _data, _flags, _ext = struct.unpack("<QIIIQ", raw[36:64])
    if raw[:16] == PARALLELS[0]:
        sectors &= 0xFFFF_FFFF
    problems: list[Problem] = []
    if version != 2 or not tracks:
        problems.append(
            Problem(code="parallels.unsupported", message=f"Parallels version {version}")
        )
    if sectors > entries * tracks:
        message = f"its table of {entries} clusters does not cover {sectors} sectors"
        problems.append(Problem(code="parallels.size", message=message))
    if 64 + entries * 4 > source.size:
        message = "truncated: its block table is beyond the end of the file"
        problems.append(Problem(code="parallels.truncated", message=message))
    dirty = in_use == _PARALLELS_OPEN
    if dirty:
        message = "it was not closed cleanly, or is open now"
        problems.append(Problem(code="parallels.dirty", message=message, fatal=False))
    return ImageHeader(
        path=source.path,
        format="parallels",
        stated=stated,
        file_size=source.size,
        virtual_size=sectors * 512,
        identity=source.identity,
        version=version,
        cluster_size=tracks * 512,
        dirty=dirty,
        problems=tuple(problems),
    )


def vet_luks(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a LUKS container, version 1 or 2.

    The virtual size is that of the decrypted data; for LUKS2 the data's place stands in JSON
    that is not read here, and the whole file's size is given.
    """
    raw = source.read(0, 592, "the end of the LUKS header")
    if raw[:6] != LUKS:
        raise ImageError(f"{source.path}: not a LUKS container (no signature)")
    (version,) = struct.unpack(">H", raw[6:8])
    problems: list[Problem] = []
    payload = 0
    if version == 1:
        payload = struct.unpack(">I", raw[104:108])[0] * 512
        if payload > source.size:
            message = f"truncated: its data begins at {payload}, beyond the end of the file"
            problems.append(Problem(code="luks.truncated", message=message))
    elif version != 2:
        problems.append(Problem(code="luks.unsupported", message=f"LUKS version {version}"))
    return ImageHeader(
        path=source.path,
        format="luks",
        stated=stated,
        file_size=source.size,
        virtual_size=max(0, source.size - payload) // 512 * 512,
        identity=source.identity,
        version=version,
        encryption="luks",
        problems=tuple(problems),
    )
