"""Magic numbers of what can lie on a volume but the direct engine does not look into.

The names and places are libblkid's (libblkid/src/superblocks/*.c, util-linux 2.38).
"""

from __future__ import annotations

from typing import NamedTuple


class Signature(NamedTuple):
    """``magic`` at byte ``offset`` (from the end of the volume if negative) means ``type``."""

    type: str
    offset: int
    magic: bytes


FOREIGN = tuple(
    Signature(*entry)
    for entry in (
        ("BitLocker", 3, b"-FVE-FS-"),
        ("ReFS", 0, b"\0\0\0ReFS\0"),
        ("iso9660", 0x8001, b"CD001"),
        ("iso9660", 0x8009, b"CDROM"),
        ("udf", 0x8001, b"BEA01"),
        ("udf", 0x8001, b"NSR02"),
        ("udf", 0x8001, b"NSR03"),
        ("jfs", 0x8000, b"JFS1"),
        ("reiserfs", 0x2034, b"ReIsErFs"),
        ("reiserfs", 0x10034, b"ReIsErFs"),
        ("reiserfs", 0x10034, b"ReIsEr2Fs"),
        ("reiserfs", 0x10034, b"ReIsEr3Fs"),
        ("reiser4", 0x10000, b"ReIsEr4"),
        ("hfs", 0x400, b"BD"),
        ("hfsplus", 0x400, b"H+"),
        ("hfsplus", 0x400, b"HX"),
        ("nilfs2", 0x406, b"\x34\x34"),
        ("erofs", 0x400, b"\xe2\xe1\xf5\xe0"),
        ("apfs", 0x20, b"NXSB"),
        ("VMFS_volume_member", 0x100000, b"\x0d\xd0\x01\xc0"),
        ("VMFS", 0x200000, b"\x5e\xf1\xab\x2f"),
        ("cramfs", 0, b"\x45\x3d\xcd\x28"),
        ("cramfs", 0, b"\x28\xcd\x3d\x45"),
        ("romfs", 0, b"-rom1fs-"),
        ("gfs2", 0x10000, b"\x01\x16\x19\x70"),
        ("ocfs2", 0x400, b"OCFSV2"),
        ("ocfs2", 0x800, b"OCFSV2"),
        ("ocfs2", 0x1000, b"OCFSV2"),
        ("ocfs2", 0x2000, b"OCFSV2"),
        ("hpfs", 0x2000, b"\x49\xe8\x95\xf9"),
        ("bfs", 0, b"\xce\xfa\xad\x1b"),
        ("befs", 0x20, b"BFS1"),
        ("befs", 0x220, b"BFS1"),
        ("vxfs", 0x400, b"\xf5\xfc\x01\xa5"),
        ("ubi", 0, b"UBI#"),
        ("ubifs", 0, b"\x31\x18\x10\x06"),
        ("stratis", 0x1004, b"!Stra0tis\x86\xff\x02^\x41rh"),
        ("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
        ("bcachefs", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
        ("ceph_bluestore", 0, b"bluestore block device"),
        ("vdo", 0, b"dmvdo001"),
        ("DM_verity_hash", 0, b"verity\0\0"),
        ("DM_integrity", 0, b"integrt\0"),
        ("DM_snapshot_cow", 0, b"SnAp"),
        ("LVM1_member", 0, b"HM\1\0"),
        ("LVM1_member", 0, b"HM\2\0"),
        ("squashfs3", 0, b"sqsh"),
        ("ufs", 0x55C, b"\x54\x19\x01\x00"),
        ("ufs", 0x255C, b"\x54\x19\x01\x00"),
        ("ufs", 0x255C, b"\x19\x01\x54\x19"),
        ("ufs", 0x1055C, b"\x19\x01\x54\x19"),
        ("ufs", 0x4055C, b"\x19\x01\x54\x19"),
        ("swsuspend", 0xFF6, b"S1SUSPEND"),
        ("swsuspend", 0xFF6, b"S2SUSPEND"),
        ("swsuspend", 0xFF6, b"ULSUSPEND"),
        ("swsuspend", 0xFF6, b"LINHIB0001"),
        ("ddf_raid_member", -512, b"\xde\x11\xde\x11"),
        ("ddf_raid_member", -512, b"\x11\xde\x11\xde"),
        ("isw_raid_member", -1024, b"Intel Raid ISM Cfg Sig."),
    )
)

ZFS_UBERBLOCK = (b"\x0c\xb1\xba\x00\0\0\0\0", b"\0\0\0\0\x00\xba\xb1\x0c")
MINIX = (b"\x7f\x13", b"\x8f\x13", b"\x68\x24", b"\x78\x24")
