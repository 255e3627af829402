"""FAT, NTFS and exFAT by libblkid's rules (superblocks/{vfat,ntfs,exfat}.c, util-linux 2.38)."""

from __future__ import annotations

import struct

from imgtools.direct.probe import SPACE, Probe, text
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

FAT12_MAX, FAT16_MAX, FAT32_MAX = 0xFF4, 0xFFF4, 0x0FFFFFF6
MAX_ROOT_CLUSTERS = 100  # blkid's own bound
MAX_ATTRIBUTES = 64


def _power_of_2(value: int) -> bool:
    return value > 0 and not value & (value - 1)


def _serial(raw: bytes) -> str:
    if not any(raw):
        return ""
    return f"{raw[3]:02X}{raw[2]:02X}-{raw[1]:02X}{raw[0]:02X}"


# --- FAT ----------------------------------------------------------------------------------------


def probe_fat(stream: BlockStream, name: str) -> Probe | None:
    """Recognise FAT12, FAT16 and FAT32; the label is the root directory's entry."""
    del name
    boot = stream.read_at(0, 512)
    if len(boot) < 512 or not _fat_magic(boot):
        return None
    sector, cluster, reserved, fats, entries, small, media, length16 = struct.unpack_from(
        "<HBHBHHBH", boot, 11
    )
    valid = (
        fats
        and reserved
        and (media >= 0xF8 or media == 0xF0)
        and _power_of_2(cluster)
        and _power_of_2(sector)
        and 512 <= sector <= 4096
    )
    if not valid:
        return None
    length32, root_cluster = struct.unpack_from("<I4xI", boot, 36)
    sectors = small or struct.unpack_from("<I", boot, 32)[0]
    fat_sectors = fats * (length16 or length32)
    root_sectors = -(-entries * 32 // sector)
    data = reserved + fat_sectors + root_sectors
    clusters = (sectors - data) // cluster
    if not length16 and length32:
        limit = FAT32_MAX
    else:
        limit = FAT16_MAX if clusters > FAT12_MAX else FAT12_MAX
    if clusters > limit:
        return None
    if length16:
        root = stream.read_at((reserved + fat_sectors) * sector, entries * 32)
        return Probe(type="vfat", label=_fat_label(root) or "", uuid=_serial(boot[39:43]))
    if not length32:
        return None
    label = _fat32_label(stream, root_cluster, reserved * sector, data * sector, cluster * sector)
    return Probe(type="vfat", label=label, uuid=_serial(boot[67:71]))


def _fat_magic(boot: bytes) -> bool:
    if boot[82:87] == b"MSWIN" or boot[82:90] == b"FAT32   " or boot[54:59] == b"MSDOS":
        return True
    if boot[54:62] in (b"FAT16   ", b"FAT12   ", b"FAT     "):
        return True
    # Weaker magic: a jump or the boot signature, and not the look-alikes of OS/2.
    return boot[510:512] == b"\x55\xaa" and boot[54:62] not in (b"JFS     ", b"HPFS    ")


def _fat32_label(stream: BlockStream, first: int, fat: int, data: int, size: int) -> str:
    cluster = first
    for _ in range(MAX_ROOT_CLUSTERS):
        if not 2 <= cluster < FAT32_MAX:
            break
        label = _fat_label(stream.read_at(data + (cluster - 2) * size, size))
        if label is not None:
            return label
        raw = stream.read_at(fat + cluster * 4, 4)
        if len(raw) < 4:
            break
        cluster = struct.unpack("<I", raw)[0] & 0x0FFFFFFF
    return ""


def _fat_label(directory: bytes) -> str | None:
    """The volume label among directory entries; None where the search must go on."""
    for at in range(0, len(directory) - 31, 32):
        entry = directory[at : at + 32]
        attributes = entry[11]
        if entry[0] == 0:
            return ""
        if entry[0] == 0xE5 or any(entry[20:22]) or any(entry[26:28]):
            continue
        if attributes & 0x3F != 0x0F and attributes & 0x18 == 0x08:
            first = b"\xe5" if entry[0] == 5 else entry[:1]
            return text(first + entry[1:11])
    return None


# --- NTFS ---------------------------------------------------------------------------------------


def probe_ntfs(stream: BlockStream, name: str) -> Probe | None:
    """Recognise NTFS; the label is the $VOLUME_NAME attribute of MFT record 3."""
    boot = stream.read_at(0, 512)
    if len(boot) < 512 or boot[3:11] != b"NTFS    ":
        return None
    sector, raw_cluster = struct.unpack_from("<HB", boot, 11)
    cluster_sectors = raw_cluster if raw_cluster <= 128 else 1 << (256 - raw_cluster)
    if not _power_of_2(sector) or not 256 <= sector <= 4096 or not 0 < cluster_sectors <= 4096:
        raise DamagedError(f"{name}: damaged NTFS boot sector")
    mft_cluster, raw_record = struct.unpack_from("<Q8xb", boot, 48)
    record_size = 1 << -raw_record if raw_record < 0 else raw_record * cluster_sectors * sector
    if not 512 <= record_size <= 65536:
        raise DamagedError(f"{name}: damaged NTFS boot sector")
    mft = mft_cluster * cluster_sectors * sector
    record = stream.read_at(mft + 3 * record_size, record_size)
    if stream.read_at(mft, 4) != b"FILE" or record[:4] != b"FILE" or len(record) < record_size:
        raise DamagedError(f"{name}: damaged NTFS master file table")
    serial = struct.unpack_from("<Q", boot, 72)[0]
    return Probe(type="ntfs", label=_volume_name(record), uuid=f"{serial:016X}" if serial else "")


def _volume_name(record: bytes) -> str:
    at = struct.unpack_from("<H", record, 20)[0]
    for _ in range(MAX_ATTRIBUTES):
        if at + 24 > len(record):
            break
        kind, length = struct.unpack_from("<II", record, at)
        if kind == 0xFFFFFFFF or not length:
            break
        if kind == 0x60:
            size, start = struct.unpack_from("<IH", record, at + 16)
            raw = record[at + start : at + start + size]
            return _utf16(raw)
        at += length
    return ""


def _utf16(raw: bytes) -> str:
    return raw.decode("utf-16-le", errors="replace").split("\0", 1)[0].rstrip(SPACE)


# --- exFAT --------------------------------------------------------------------------------------


def probe_exfat(stream: BlockStream, name: str) -> Probe | None:
    """Recognise exFAT; the label is the directory entry of type 0x83."""
    boot = stream.read_at(0, 512)
    if len(boot) < 512 or boot[3:11] != b"EXFAT   ":
        return None
    fat_offset, _, heap_offset, clusters, root = struct.unpack_from("<IIIII", boot, 80)
    sector_bits, cluster_bits = boot[108], boot[109]
    if not 9 <= sector_bits <= 12 or sector_bits + cluster_bits > 25 or not clusters:
        raise DamagedError(f"{name}: damaged exFAT boot sector")
    size = 1 << (sector_bits + cluster_bits)
    label = ""
    for _ in range(MAX_ROOT_CLUSTERS):
        if not 2 <= root < clusters + 2:
            break
        directory = stream.read_at(
            (heap_offset << sector_bits) + (root - 2) * size, min(size, 1 << 20)
        )
        found = _exfat_label(directory)
        if found is not None:
            label = found
            break
        raw = stream.read_at((fat_offset << sector_bits) + root * 4, 4)
        root = int.from_bytes(raw, "little") if len(raw) == 4 else 0
    return Probe(type="exfat", label=label, uuid=_serial(boot[100:104]))


def _exfat_label(directory: bytes) -> str | None:
    for at in range(0, len(directory) - 31, 32):
        kind, count = directory[at], directory[at + 1]
        if kind == 0:
            return ""
        if kind == 0x83:
            return _utf16(directory[at + 2 : at + 2 + 2 * min(count, 11)])
    return None
