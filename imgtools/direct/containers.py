"""VMDK, VDI, VHD and VHDX over dissect.hypervisor, within bounds.

dissect 3.21 reads wrongly across block borders in VDI and VHDX, so every read is cut there; it
follows names found in VMDK and VHDX headers, so it only ever gets streams without a name.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from imgtools.direct.importing import import_only
from imgtools.direct.streams import Adapter, BlockStream, FileStream, Joined, Padded, Window, Zeros
from imgtools.errors import DamagedError, DirectUnsupportedError
from imgtools.model.disks import ImageLayer

SECTOR = 512
MAX_TABLE_ENTRIES = 1 << 22  # 16 MiB of table: a disk of 4 TiB in blocks of 1 MiB
MAX_DESCRIPTOR = 1 << 20
MAX_REGIONS = 2047
COMPRESSED_GRAINS = 1 << 16


def open_vdi(layer: ImageLayer) -> BlockStream:
    """Open a VDI, dynamic or static."""
    file = FileStream(layer.path)
    head = file.read_at(0, 512).ljust(512, b"\0")
    block, _, blocks = struct.unpack_from("<III", head, 376)
    kind = struct.unpack_from("<I", head, 76)[0]
    if kind not in (1, 2):
        raise DirectUnsupportedError(f"{layer.path}: a VDI of type {kind}")
    if not block or block % SECTOR or blocks > MAX_TABLE_ENTRIES:
        raise DirectUnsupportedError(f"{layer.path}: a VDI with unusual blocks")
    vdi = import_only("dissect.hypervisor.disk.vdi").VDI(Padded(file, block))
    return Adapter(vdi.open(), layer.virtual_size, piece=block)


def open_vpc(layer: ImageLayer) -> BlockStream:
    """Open a VHD, fixed or dynamic."""
    file = FileStream(layer.path)
    footer = file.read_at(0, 512)
    if footer[:8] != b"conectix":  # fixed: the footer stands at the end only
        return Window(file, 0, layer.virtual_size)
    table, _, entries, block = struct.unpack_from(
        ">QIII", file.read_at(struct.unpack_from(">Q", footer, 16)[0], 1024).ljust(36, b"\0"), 16
    )
    if footer[60:64] != b"\0\0\0\3" or not block or entries > MAX_TABLE_ENTRIES or not table:
        raise DirectUnsupportedError(f"{layer.path}: a VHD of an unusual kind")
    return Adapter(import_only("dissect.hypervisor.disk.vhd").VHD(file), layer.virtual_size)


def open_vhdx(layer: ImageLayer) -> BlockStream:
    """Open a VHDX whose log is empty (vet has seen to that) and that has no parent."""
    file = FileStream(layer.path)
    for offset in (0x30000, 0x40000):
        region = file.read_at(offset, 16)
        if len(region) < 16 or struct.unpack_from("<I", region, 8)[0] > MAX_REGIONS:
            raise DamagedError(f"{layer.path}: damaged VHDX region table")
    vhdx = import_only("dissect.hypervisor.disk.vhdx").VHDX(Padded(file, 1 << 20))
    if vhdx.has_parent:
        raise DirectUnsupportedError(f"{layer.path}: a differencing VHDX")
    return Adapter(vhdx, layer.virtual_size, piece=vhdx.block_size)


# --- VMDK ---------------------------------------------------------------------------------------


class _Sparse(BlockStream):
    """One sparse extent."""

    def __init__(self, extent: Any) -> None:
        super().__init__(extent.size)
        self._extent = extent

    def _read_at(self, offset: int, length: int) -> bytes:
        first = offset // SECTOR
        last = -(-(offset + length) // SECTOR)
        data: bytes = self._extent.read_sectors(first, last - first)
        if len(data) != (last - first) * SECTOR:
            raise DamagedError("a VMDK extent ends early")
        return data[offset - first * SECTOR :][:length]


def open_vmdk(layer: ImageLayer) -> BlockStream:
    """Open a VMDK: one sparse or streamOptimized file, or a descriptor with its extents."""
    file = FileStream(layer.path)
    head = file.read_at(0, 512)
    if head[:4] == b"KDMV" and struct.unpack_from("<Q", head, 12)[0]:
        return Window(_open_sparse(file, str(layer.path)), 0, layer.virtual_size)
    if head[:4] in (b"KDMV", b"COWD"):
        raise DirectUnsupportedError(f"{layer.path}: a VMDK of an unusual kind")
    return Window(_open_descriptor(file, layer), 0, layer.virtual_size)


def _open_descriptor(file: FileStream, layer: ImageLayer) -> BlockStream:
    """Join the extents; ``layer.extents`` are the descriptor's files, each once, in its order."""
    raw = file.read_at(0, MAX_DESCRIPTOR).split(b"\0", 1)[0]
    parser = import_only("dissect.hypervisor.disk.vmdk").DiskDescriptor
    descriptor = parser.parse(raw.decode("utf-8", errors="surrogateescape"))
    if descriptor.attr.get("parentCID", "ffffffff").lower() != "ffffffff":
        raise DirectUnsupportedError(f"{layer.path}: a VMDK on top of another image")
    names: dict[str, FileStream] = {}
    parts: list[BlockStream] = []
    for extent in descriptor.extents:
        size = extent.sectors * SECTOR
        if extent.type == "ZERO":
            parts.append(Zeros(size))
            continue
        if extent.type not in ("FLAT", "VMFS", "SPARSE") or not extent.filename:
            raise DirectUnsupportedError(f"{layer.path}: a VMDK extent of type {extent.type}")
        if extent.filename not in names:
            if len(names) == len(layer.extents):
                raise DamagedError(f"{layer.path}: its extents changed while opening")
            names[extent.filename] = FileStream(layer.extents[len(names)])
        source = names[extent.filename]
        if extent.type == "SPARSE":
            parts.append(Window(_open_sparse(source, str(source.path)), 0, size))
        else:
            parts.append(Window(source, int(extent.start_sector or 0) * SECTOR, size))
    if len(names) != len(layer.extents) or not parts:
        raise DamagedError(f"{layer.path}: its extents changed while opening")
    return parts[0] if len(parts) == 1 else Joined(parts)


def _open_sparse(file: FileStream, name: str) -> BlockStream:
    head = file.read_at(0, 512).ljust(512, b"\0")
    if struct.unpack_from("<Q", head, 56)[0] == 0xFFFFFFFFFFFFFFFF:  # the directory is at the end
        head = file.read_at(file.size // SECTOR * SECTOR - 1024, 512).ljust(512, b"\0")
    flags, capacity, grain = struct.unpack_from("<IQQ", head, 8)
    entries = struct.unpack_from("<I", head, 44)[0]
    if head[:4] != b"KDMV" or not 0 < grain <= 0x8000 or not 0 < entries <= 4096 or not capacity:
        raise DamagedError(f"{name}: damaged VMDK header")
    if capacity // (grain * entries) > MAX_TABLE_ENTRIES:
        raise DirectUnsupportedError(f"{name}: a VMDK beyond 4 TiB")
    extent = import_only("dissect.hypervisor.disk.vmdk").SparseDisk(_plain(file, grain * SECTOR))
    if flags & COMPRESSED_GRAINS:
        extent._read_compressed_grain = lambda sector: _grain(file, sector, grain * SECTOR, name)  # noqa: SLF001
    return _Sparse(extent)


def _plain(file: FileStream, grain_size: int) -> BlockStream:
    """The file without slack for compressed extents' sake, padded to a whole grain."""
    return Padded(file, grain_size) if file.size % SECTOR == 0 else file


def _grain(file: FileStream, sector: int, size: int, name: str) -> bytes:
    """Inflate one compressed grain, no further than its size."""
    head = file.read_at(sector * SECTOR, 12)
    if len(head) < 12:
        raise DamagedError(f"{name}: a compressed grain lies beyond the end of the file")
    length = struct.unpack_from("<I", head, 8)[0]
    if length > 2 * size + 1024:
        raise DamagedError(f"{name}: a compressed grain is larger than its content")
    packed = file.read_at(sector * SECTOR + 12, length)
    return zlib.decompressobj().decompress(packed, size)  # the last grain may be a short one
