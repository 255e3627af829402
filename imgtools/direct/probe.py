"""Tell what lies on a volume, as libblkid would: type, label, UUID.

Only what blkid's answer is certain for is answered.  A volume with two signatures, or with one
whose superblock does not hold together, raises a `DirectError`: there blkid's result depends on
details that the appliance knows best.  Reads at most about 1 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from imgtools.direct.signatures import FOREIGN, MINIX, ZFS_UBERBLOCK
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

SPACE = " \t\n\v\f\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """blkid's TYPE, LABEL and UUID; empty strings for what it does not report.

    ``foreign`` says that the direct engine knows the type by its magic number alone, so that
    label and UUID are missing.
    """

    type: str
    label: str = ""
    uuid: str = ""
    foreign: bool = False


UNKNOWN = Probe(type="")
Prober = Callable[[BlockStream, str], Probe | None]


def probe(stream: BlockStream, name: str) -> Probe:
    """Recognise the content of the device ``name``; ``type`` is empty for nothing known.

    Raises DamagedError when signatures contradict one another or are damaged.
    """
    for container in (_md, _lvm2, _luks):  # blkid stops at the first of these
        found = container(stream, name)
        if found is not None:
            return found
    all_found = [found for prober in _PROBERS if (found := prober(stream, name))]
    all_found += _foreign(stream)
    types = {found.type for found in all_found}
    if len(types) > 1:
        raise DamagedError(f"{name}: signatures of several types: {', '.join(sorted(types))}")
    if all_found:
        return all_found[0]
    if stream.read_at(0x410, 2) in MINIX or stream.read_at(0x418, 2) == b"\x5a\x4d":
        return Probe(type="minix", foreign=True)
    return UNKNOWN


def _foreign(stream: BlockStream) -> list[Probe]:
    found = []
    for signature in FOREIGN:
        offset = signature.offset if signature.offset >= 0 else stream.size + signature.offset
        if offset >= 0 and stream.read_at(offset, len(signature.magic)) == signature.magic:
            found.append(Probe(type=signature.type, foreign=True))
    uberblocks = stream.read_at(128 << 10, 128 << 10)
    if any(uberblocks[at : at + 8] in ZFS_UBERBLOCK for at in range(0, len(uberblocks), 1024)):
        found.append(Probe(type="zfs_member", foreign=True))
    return found[:1] if {probe.type for probe in found} == {"iso9660", "udf"} else found


def text(raw: bytes) -> str:
    """A label as blkid gives it: up to the first NUL, without white space at its end."""
    return raw.split(b"\0", 1)[0].decode("utf-8", errors="surrogateescape").rstrip(SPACE)


def uuid_text(raw: bytes) -> str:
    """A DCE UUID in lower case, empty when it is all zeros."""
    return str(UUID(bytes=raw)) if any(raw) else ""


# --- containers ---------------------------------------------------------------------------------


def _md(stream: BlockStream, name: str) -> Probe | None:
    from imgtools.direct.md import find_superblock

    del name
    return Probe(type="linux_raid_member") if find_superblock(stream) else None


def _lvm2(stream: BlockStream, name: str) -> Probe | None:
    del name
    for sector in range(4):
        label = stream.read_at(sector * 512, 32)
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            uuid = stream.read_at(sector * 512 + int.from_bytes(label[20:24], "little"), 32)
            return Probe(type="LVM2_member", uuid=_lvm_uuid(uuid))
    return None


def _lvm_uuid(raw: bytes) -> str:
    plain = raw.decode("ascii", errors="replace")
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(plain[start:end] for start, end in pairwise(cuts))


def _luks(stream: BlockStream, name: str) -> Probe | None:
    head = stream.read_at(0, 208)
    if head[:6] != b"LUKS\xba\xbe":
        for offset in (
            0x4000,
            0x8000,
            0x10000,
            0x20000,
            0x40000,
            0x80000,
            0x100000,
            0x200000,
            0x400000,
        ):
            if stream.read_at(offset, 6) == b"SKUL\xba\xbe":
                raise DamagedError(f"{name}: LUKS volume whose first header is gone")
        return None
    label = text(head[24:72]) if head[6:8] == b"\0\2" else ""
    return Probe(type="crypto_LUKS", label=label, uuid=text(head[168:208]))


# --- filesystems --------------------------------------------------------------------------------

EXT_JOURNAL_DEVICE = 0x8
EXT2_RO_COMPAT = 0x7  # sparse_super, large_file, btree_dir
EXT2_INCOMPAT = 0x12  # filetype, meta_bg
EXT3_INCOMPAT = 0x16  # and recover


def _ext(stream: BlockStream, name: str) -> Probe | None:
    block = stream.read_at(1024, 1024)
    if block[56:58] != b"\x53\xef" or len(block) < 1024:
        return None
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if ro_compat & 0x400 and crc32c(block[:1020]) != struct.unpack_from("<I", block, 1020)[0]:
        raise DamagedError(f"{name}: ext4 superblock with a wrong checksum")
    label, uuid = text(block[120:136]), uuid_text(block[104:120])
    kind = _ext_type(compat, incompat, ro_compat)
    if struct.unpack_from("<I", block, 352)[0] & 4:
        kind = "ext4dev"
    return Probe(type=kind, label=label, uuid=uuid)


def _ext_type(compat: int, incompat: int, ro_compat: int) -> str:
    if incompat & EXT_JOURNAL_DEVICE:
        return "jbd"
    if ro_compat & ~EXT2_RO_COMPAT or incompat & ~EXT3_INCOMPAT:
        return "ext4"
    if compat & 4:
        return "ext3"
    return "ext4" if incompat & ~EXT2_INCOMPAT else "ext2"


def crc32c(data: bytes, crc: int = 0xFFFFFFFF) -> int:
    """CRC-32C without the final inversion, as ext4 and XFS seed it."""
    table = _crc32c_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


_TABLE: list[int] = []


def _crc32c_table() -> list[int]:
    if not _TABLE:
        for value in range(256):
            crc = value
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
            _TABLE.append(crc)
    return _TABLE


def _xfs(stream: BlockStream, name: str) -> Probe | None:
    block = stream.read_at(0, 512)
    if block[:4] != b"XFSB" or len(block) < 512:
        return None
    block_size = struct.unpack_from(">I", block, 4)[0]
    sector_size, inode_size = struct.unpack_from(">HH", block, 102)
    if block_size not in (1 << bit for bit in range(9, 17)) or not sector_size or not inode_size:
        raise DamagedError(f"{name}: damaged XFS superblock")
    return Probe(type="xfs", label=text(block[108:120]), uuid=uuid_text(block[32:48]))


def _btrfs(stream: BlockStream, name: str) -> Probe | None:
    del name
    block = stream.read_at(0x10000, 0x1000)
    if block[64:72] != b"_BHRfS_M" or len(block) < 0x1000:
        return None
    return Probe(type="btrfs", label=text(block[0x12B:0x22B]), uuid=uuid_text(block[32:48]))


def _squashfs(stream: BlockStream, name: str) -> Probe | None:
    del name
    head = stream.read_at(0, 32)
    if head[:4] != b"hsqs" or struct.unpack_from("<H", head, 28)[0] < 4:
        return None
    return Probe(type="squashfs")


def _f2fs(stream: BlockStream, name: str) -> Probe | None:
    del name
    block = stream.read_at(1024, 1148)
    if block[:4] != b"\x10\x20\xf5\xf2" or len(block) < 1148:
        return None
    label = block[124:1148].decode("utf-16-le", errors="replace").split("\0", 1)[0]
    return Probe(type="f2fs", label=label.rstrip(SPACE), uuid=uuid_text(block[108:124]))


SWAP_MAGIC = (b"SWAP-SPACE", b"SWAPSPACE2")


def _swap(stream: BlockStream, name: str) -> Probe | None:
    for page in (0x1000, 0x2000, 0x4000, 0x8000, 0x10000):
        magic = stream.read_at(page - 10, 10)
        if magic not in SWAP_MAGIC:
            continue
        if magic == SWAP_MAGIC[0]:
            return Probe(type="swap")
        header = stream.read_at(1024, 512)
        version, last_page = struct.unpack_from("<II", header)
        if version not in (1, 1 << 24) or not last_page:
            raise DamagedError(f"{name}: damaged swap header")
        if header[76:78] != b"\0\0":  # blkid: is there any garbage down there?
            return Probe(type="swap")
        return Probe(type="swap", label=text(header[28:44]), uuid=uuid_text(header[12:28]))
    return None


def _fat(stream: BlockStream, name: str) -> Probe | None:
    from imgtools.direct.probe_windows import probe_fat

    return probe_fat(stream, name)


def _ntfs(stream: BlockStream, name: str) -> Probe | None:
    from imgtools.direct.probe_windows import probe_ntfs

    return probe_ntfs(stream, name)


def _exfat(stream: BlockStream, name: str) -> Probe | None:
    from imgtools.direct.probe_windows import probe_exfat

    return probe_exfat(stream, name)


_PROBERS: tuple[Prober, ...] = (
    *(_ext, _xfs, _btrfs, _squashfs, _swap, _f2fs),
    *(_fat, _ntfs, _exfat),
)
