"""Tell an image's format by its signature, as qemu's block drivers do when they probe.

Kept apart from the vetting of each format, so that a command loads only the one it meets.
Sources: the ``…_probe`` functions in qemu's block/*.c, which follow the formats' specifications.
"""

from __future__ import annotations

import re
import struct

from imgtools.image.source import Source

QCOW2 = b"QFI\xfb"
QCOW = b"QFI\xfb\0\0\0\1"
VMDK_SPARSE = b"KDMV"
VMDK_COWD = b"COWD"
VMDK_SESPARSE = b"\xbe\xba\xfe\xca\0\0\0\0"
VMDK_DESCRIPTOR = b"# disk descriptorfile"
VHD = b"conectix"
VHDX = b"vhdxfile"
QED = b"QED\0"
LUKS = b"LUKS\xba\xbe"
PARALLELS = (b"WithoutFreeSpace", b"WithouFreSpacExt")
BOCHS = b"Bochs Virtual HD Image\0"
CLOOP = b"#!/bin/sh\n#V2.0 Format\n"
KOLY = b"koly"
KOLY_SIZE = 512
VDI = 0xBEDA107F
VDI_OFFSET = 64

VHD_FOOTER = 512
VHD_FIXED = 2

_AT_START: tuple[tuple[str, bytes], ...] = (
    ("qcow", QCOW),
    ("qcow2", QCOW2),
    ("vmdk", VMDK_SPARSE),
    ("vmdk", VMDK_COWD),
    ("vhdx", VHDX),
    ("vpc", VHD),
    ("qed", QED),
    ("luks", LUKS),
    *(("parallels", magic) for magic in PARALLELS),
    ("bochs", BOCHS),
    ("cloop", CLOOP),
)


def detect(source: Source) -> str:
    """Tell the format by signature; ``raw`` when there is none."""
    head = source.peek(0, 32)
    for name, magic in _AT_START:
        if head.startswith(magic):
            return name
    if is_vdi(source):
        return "vdi"
    if is_vmdk_descriptor(source):
        return "vmdk"
    # Last, since a guest writes the end of its raw disk as easily as the beginning: only a
    # footer that is right in every part makes a fixed VHD, and that shows the same bytes.
    if has_fixed_vhd_footer(source):
        return "vpc"
    return "dmg" if has_dmg_trailer(source) else "raw"


def is_vdi(source: Source) -> bool:
    """True when the signature stands where VDI has it."""
    raw = source.peek(VDI_OFFSET, 4)
    return len(raw) == 4 and bool(struct.unpack("<I", raw)[0] == VDI)


def is_vmdk_descriptor(source: Source) -> bool:
    """True for a plain descriptor: VMware's first line, or qemu's rule (blank and # lines)."""
    head = source.peek(0, 2048)
    if head[: len(VMDK_DESCRIPTOR)].lower() == VMDK_DESCRIPTOR:
        return True
    if head[:1] not in (b"#", b" ", b"v"):
        return False
    return re.match(rb"(?:#[^\n]*\n| *\r?\n)*+version=[123]\r?\n", head) is not None


def has_fixed_vhd_footer(source: Source) -> bool:
    """True for a fixed VHD: a footer at the end only, with a right checksum and size."""
    raw = source.peek(source.size - VHD_FOOTER, VHD_FOOTER)
    if raw[: len(VHD)] != VHD or not vhd_checksum_fits(raw, 64):
        return False
    kind, size = struct.unpack(">I", raw[60:64])[0], struct.unpack(">Q", raw[48:56])[0]
    return bool(kind == VHD_FIXED and size <= source.size - VHD_FOOTER)


def vhd_checksum_fits(raw: bytes, position: int) -> bool:
    """Compare with one's complement of the sum of all bytes without the checksum's own four."""
    (stored,) = struct.unpack(">I", raw[position : position + 4])
    total = sum(raw) - sum(raw[position : position + 4])
    return bool(stored == ~total & 0xFFFF_FFFF)


def koly_offset(source: Source) -> int | None:
    """Where qemu finds the trailer of a dmg: the first "koly" of the last sectors, else None."""
    # The size is rounded up to sectors; 515 bytes are looked at (dmg_find_koly_offset).
    begin = max(0, -(-source.size // 512) * 512 - 1023)
    found = source.peek(begin, 515).find(KOLY)
    return None if found < 0 else begin + found


def has_dmg_trailer(source: Source) -> bool:
    """True for a trailer of the only version that there is, in a file called ``.dmg``.

    qemu goes by the name alone; a guest that can write the end of its raw disk cannot rename it.
    """
    return source.path.suffix.lower() == ".dmg" and source.peek(
        source.size - KOLY_SIZE, 12
    ) == KOLY + struct.pack(">II", 4, KOLY_SIZE)
