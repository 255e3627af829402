"""Is a file that is called raw a disk at all, or just some file of the host?

Anything can be called raw, so a stranger's overlay may name ``/etc/shadow`` as its raw backing
file and show it to whoever reads the guest.  A raw member of a chain is therefore followed only
when it looks like a disk: whole sectors, and a boot sector, partition table or file system (or
zeros, or the suffix of a raw image).
"""

from __future__ import annotations

import os
from pathlib import Path

from imgtools.image.source import Source

RAW_SUFFIXES = frozenset({".raw", ".img", ".dd", ".iso"})
FLAT_SUFFIXES = RAW_SUFFIXES | {".vmdk", ".bin"}

_HEAD = 128 << 10

# (offset, magic): libblkid's for file systems and volumes.  Swap is left out on purpose: the
# host's swap file holds the host's memory.
_MAGIC: tuple[tuple[int, bytes], ...] = (
    (510, b"\x55\xaa"),
    (512, b"EFI PART"),
    (4096, b"EFI PART"),
    (0x438, b"\x53\xef"),
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),
    (0, b"hsqs"),
    (0, b"LUKS\xba\xbe"),
    (0x8001, b"CD001"),
    (0x400, b"\x10\x20\xf5\xf2"),
    (0x1000, b"\xfc\x4e\x2b\xa9"),
    (0, b"\xfc\x4e\x2b\xa9"),
    (0x218, b"LVM2 001"),
    (0x18, b"LVM2 001"),
    (0x418, b"LVM2 001"),
    (0x618, b"LVM2 001"),
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (3, b"-FVE-FS-"),
    (0x10034, b"ReIsErFs"),
    (0x10034, b"ReIsEr2Fs"),
    (0x8000, b"JFS1"),
    (0x55C, b"\x19\x01\x54\x19"),
    (0x255C, b"\x19\x01\x54\x19"),
)


def looks_like_disk(source: Source) -> bool:
    """True when the open file is plausible as a raw disk."""
    if source.is_block_device:
        return True
    if source.size % 512:
        return False
    if source.path.suffix.lower() in RAW_SUFFIXES:
        return True
    head = source.peek(0, _HEAD)
    if any(head[offset : offset + len(magic)] == magic for offset, magic in _MAGIC):
        return True
    return len(head) >= 4096 and not head.strip(b"\0")


def looks_like_flat_extent(source: Source, begin: int, end: int) -> bool:
    """True when the open file is plausible as a VMDK flat extent holding bytes begin to end.

    Only the first extent of a disk begins with a partition table, so the suffix must do for
    the others.  Never a device: an extent of the host's disk is no business of a file.
    """
    if source.is_block_device or source.size % 512 or not 0 <= begin <= end <= source.size:
        return False
    return source.path.suffix.lower() in FLAT_SUFFIXES or looks_like_disk(source)


def host_uses_device(source: Source) -> bool:
    """True when the host itself has this block device mounted or built into a volume.

    Asked of /sys and /proc, without claiming the device.
    """
    if not source.is_block_device:
        return False
    number = os.fstat(source.fd).st_rdev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not node.exists():
        return False
    parts = [node, *(child.parent for child in node.glob("*/partition"))]
    numbers = set()
    for part in parts:
        if any((part / "holders").glob("*")):
            return True
        numbers.add((part / "dev").read_text(encoding="ascii").strip())
    return bool(numbers & _mounted())


def _mounted() -> set[str]:
    """``major:minor`` of what is mounted or used as swap."""
    numbers = set()
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            numbers.add(line.split()[2])
    with Path("/proc/swaps").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in list(lines)[1:]:
            try:
                number = Path(line.split()[0]).stat().st_rdev
            except OSError:
                continue
            numbers.add(f"{os.major(number)}:{os.minor(number)}")
    return numbers
