"""Linux MD RAID arrays: their superblocks, and which arrays they make.

dissect.volume takes a member's size for the array's and reads across chunks, so superblocks are
read here and the layout is in `striping`.  Format: the kernel's include/uapi/linux/raid/md_p.h.
Only arrays that the kernel would start in a clean state are certain.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from imgtools.direct import striping
from imgtools.direct.streams import BlockStream, Joined, Window
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError

MAGIC = 0xA92B4EFC
SECTOR = 512
RESERVED = 0x10000
NEVER = (1 << 64) - 1  # resync_offset of an array that needs no resync
MAX_DEVICES = 384
MAX_ROLE = 0xFF00
FEATURE_BITMAP, FEATURE_RAID0_LAYOUT = 1, 4096
LEVELS = {-1: "linear", 0: "raid0", 1: "raid1", 4: "raid4", 5: "raid5", 6: "raid6", 10: "raid10"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """One member's superblock.  Sizes and offsets in bytes; ``role`` None for a spare."""

    uuid: str
    name: str
    version: str
    level: int
    layout: int
    chunk: int
    component_size: int
    raid_disks: int
    data_offset: int
    data_size: int
    role: int | None
    events: int
    clean: bool
    minor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A device with an MD superblock."""

    device: str
    stream: BlockStream
    superblock: Superblock


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """An assembled array."""

    uuid: str
    name: str
    level: str
    stream: BlockStream
    devices: tuple[str, ...]
    degraded: bool
    minor: int | None


def find_superblock(stream: BlockStream) -> tuple[int, int] | None:
    """Return (byte offset, minor version or 90) of the MD superblock, None if there is none."""
    size = stream.size
    for offset, minor in (
        ((size & ~(RESERVED - 1)) - RESERVED, 90),
        (((size // SECTOR - 16) & ~7) * SECTOR, 0),
        (0, 1),
        (0x1000, 2),
    ):
        head = stream.read_at(offset, 152) if offset >= 0 else b""
        if len(head) < 152 or struct.unpack_from("<I", head)[0] != MAGIC:
            continue
        major, where = struct.unpack_from("<I", head, 4)[0], struct.unpack_from("<Q", head, 144)[0]
        if (major == 0 and minor == 90) or (major == 1 and where * SECTOR == offset):
            return offset, minor
    return None


def covers_whole_disk(stream: BlockStream, largest: int, device: str) -> bool:
    """True if a partitioned disk is itself a member, its superblock being at its end.

    A 0.90 superblock stands at the same place for the disk and for a last partition that
    reaches its end; it is the disk's when it speaks of more than the ``largest`` partition.
    """
    place = find_superblock(stream)
    if place is None:
        return False
    return place[1] != 90 or read_member(stream, device).superblock.component_size > largest


def read_member(stream: BlockStream, device: str) -> Member:
    """Read the superblock on ``device``.  Raises DirectError when it is not plainly usable."""
    place = find_superblock(stream)
    if place is None:
        raise DamagedError(f"{device}: no MD superblock")
    offset, minor = place
    raw = stream.read_at(offset, 4096)
    superblock = _parse_0(raw, offset, device) if minor == 90 else _parse_1(raw, minor, device)
    end = superblock.data_offset + superblock.data_size
    if end > stream.size or superblock.level not in LEVELS:
        raise DamagedError(f"{device}: an MD superblock that does not fit the device")
    return Member(device=device, stream=stream, superblock=superblock)


def _parse_1(raw: bytes, minor: int, device: str) -> Superblock:
    count = struct.unpack_from("<I", raw, 220)[0]
    if count > MAX_DEVICES or len(raw) < 256 + 2 * MAX_DEVICES:
        raise DamagedError(f"{device}: damaged MD superblock")
    covered = raw[:216] + bytes(4) + raw[220 : 256 + 2 * count]
    covered += bytes(-len(covered) % 4)
    total = sum(word for (word,) in struct.iter_unpack("<I", covered))
    if (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF != struct.unpack_from("<I", raw, 216)[0]:
        raise DamagedError(f"{device}: MD superblock with a wrong checksum")
    features = struct.unpack_from("<I", raw, 8)[0]
    if features & ~(FEATURE_BITMAP | FEATURE_RAID0_LAYOUT):
        raise DirectUnsupportedError(f"{device}: MD array in transition (features {features:#x})")
    level, layout, size, chunk, disks = struct.unpack_from("<iIQII", raw, 72)
    data_offset, data_size = struct.unpack_from("<QQ", raw, 128)
    number = struct.unpack_from("<I", raw, 160)[0]
    role = struct.unpack_from("<H", raw, 256 + 2 * number)[0] if number < count else 0xFFFF
    events, resync = struct.unpack_from("<QQ", raw, 200)
    return Superblock(
        uuid=_uuid(raw[16:32]),
        name=raw[32:64].split(b"\0", 1)[0].decode("utf-8", errors="surrogateescape"),
        version=f"1.{minor}",
        level=level,
        layout=layout,
        chunk=chunk * SECTOR,
        component_size=size * SECTOR,
        raid_disks=disks,
        data_offset=data_offset * SECTOR,
        data_size=data_size * SECTOR,
        role=role if role < MAX_ROLE else None,
        events=events,
        clean=resync == NEVER,
        minor=None,
    )


def _parse_0(raw: bytes, offset: int, device: str) -> Superblock:
    words = struct.unpack("<1024I", raw)
    total = sum(words) - words[38]
    if (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF != words[38]:
        raise DamagedError(f"{device}: MD superblock with a wrong checksum")
    if words[2] != 90:
        raise DirectUnsupportedError(f"{device}: MD array in transition")
    number = words[992]
    state = words[128 + 32 * number + 4] if number < 27 else 0
    in_sync = state & 6 == 6 and not state & 1  # active and in sync, not faulty
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    uuid = struct.pack(">4I", words[5], *words[13:16])
    return Superblock(
        uuid=_uuid(uuid),
        name="",
        version="0.90",
        level=level,
        layout=words[64],
        chunk=words[65],
        component_size=words[8] * 1024,
        raid_disks=words[10],
        data_offset=0,
        data_size=offset,
        role=words[995] if in_sync else None,
        events=words[40] << 32 | words[39],
        clean=bool(words[33] & 1),
        minor=words[11],
    )


def _uuid(raw: bytes) -> str:
    """As mdadm prints it: four groups of eight digits."""
    return ":".join(raw[at : at + 4].hex() for at in (0, 4, 8, 12))


def assemble(members: Sequence[Member]) -> list[Array]:
    """Make the arrays of all members found, in the order of their first member."""
    sets: dict[str, list[Member]] = {}
    for member in members:
        sets.setdefault(member.superblock.uuid, []).append(member)
    return [_array(group) for group in sets.values()]


def _array(group: list[Member]) -> Array:
    first = group[0].superblock
    what = f"MD array {first.name or first.uuid}"
    active = _active(group, what)
    if first.level not in (-1, 0) and not all(member.superblock.clean for member in group):
        raise UncleanError(f"{what}: was not shut down cleanly and needs a resync")
    return Array(
        uuid=first.uuid,
        name=first.name,
        level=LEVELS[first.level],
        stream=_stream(first, active, what),
        devices=tuple(sorted(member.device for member in active.values())),
        degraded=len(active) < first.raid_disks,
        minor=first.minor,
    )


def _active(group: list[Member], what: str) -> dict[int, Member]:
    """The members by role, when all superblocks tell the same story."""
    first = group[0].superblock
    active: dict[int, Member] = {}
    for member in group:
        block = member.superblock
        shape = (block.level, block.layout, block.chunk, block.raid_disks, block.component_size)
        known = (first.level, first.layout, first.chunk, first.raid_disks, first.component_size)
        if block.events != first.events or shape != known or block.version != first.version:
            raise UncleanError(f"{what}: {member.device} disagrees with {group[0].device}")
        if block.role is None:
            continue
        if block.role in active or block.role >= first.raid_disks:
            raise DamagedError(f"{what}: two devices have one role")
        active[block.role] = member
    if not 0 < first.raid_disks <= MAX_DEVICES:
        raise DamagedError(f"{what}: {first.raid_disks} disks")
    return dict(sorted(active.items()))


def _stream(block: Superblock, active: dict[int, Member], what: str) -> BlockStream:
    level, chunk = block.level, block.chunk
    usable = 4096 <= chunk <= 1 << 30 and not chunk & (chunk - 1)
    if not usable and level != 1 and not (level == -1 and chunk == 0):
        raise DirectUnsupportedError(f"{what}: chunks of {chunk} bytes")
    if level in (-1, 0) and len(active) < block.raid_disks:
        raise DirectUnsupportedError(f"{what}: a disk of it is missing")
    if not active:
        raise DirectUnsupportedError(f"{what}: no disk of it is usable")
    if level == -1:
        return Joined([_data(member, chunk or SECTOR) for member in active.values()])
    if level == 0:
        return _raid0(block, [_data(member, chunk) for member in active.values()], what)
    if level == 1:
        return Window(*_component(next(iter(active.values())), block.component_size))
    size = block.component_size // chunk * chunk
    legs = {role: Window(*_component(member, size)) for role, member in active.items()}
    if level == 10:
        return striping.Raid10(legs, block.raid_disks, chunk, block.layout, size)
    return striping.Parity(legs, block.raid_disks, chunk, level, block.layout, size)


def _component(member: Member, size: int) -> tuple[BlockStream, int, int]:
    if size > member.superblock.data_size or not size:
        raise DamagedError(f"{member.device}: smaller than its share of the MD array")
    return member.stream, member.superblock.data_offset, size


def _data(member: Member, unit: int) -> Window:
    block = member.superblock
    return Window(member.stream, block.data_offset, block.data_size // unit * unit)


def _raid0(block: Superblock, legs: list[Window], what: str) -> BlockStream:
    if len({leg.size for leg in legs}) == 1:
        return striping.Striped(legs, block.chunk)
    if block.version == "0.90" or block.layout not in (1, 2):
        raise DirectUnsupportedError(f"{what}: uneven disks without a recorded layout")
    return striping.Zones(legs, block.chunk, original=block.layout == 1)
