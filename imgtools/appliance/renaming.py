"""Give volumes other UUIDs: filesystems, swap and LUKS headers one by one, LVM all at once.

Nothing may be mounted.  Each is done by the program of its maker in the appliance, on our overlay;
a filesystem that it refuses (damaged, or of a kind whose UUID is part of it) is an error.
"""

from __future__ import annotations

import shlex

from imgtools.appliance.launch import Appliance
from imgtools.errors import GuestOperationError

TIMEOUT = 24 * 3600.0  # every block of a large filesystem may carry the UUID in its checksum

# tune2fs changes a filesystem with checksums only right after a full check (tune2fs(8), -U).
_EXT = """
e2fsck -fp {device}
[ $? -lt 4 ] || exit 1
tune2fs -U {uuid} {device} >/dev/null
"""
# A log that was not replayed carries the old UUID; mounting replays it.
_REPLAY = "mkdir -p /tmp/imgtools.mnt && mount {options} {device} /tmp/imgtools.mnt && "
_REPLAY += "umount /tmp/imgtools.mnt || exit 1\n"
_XFS = _REPLAY.replace("{options}", "-t xfs -o nouuid") + "xfs_admin -U {uuid} {device}\n"
_BTRFS = (
    "btrfs device scan\n"
    + _REPLAY.replace("{options}", "-t btrfs")
    + "btrfstune -f -U {uuid} {device} || exit 1\n"
    + "btrfs device scan --forget\nbtrfs device scan\n"
)
_SCRIPTS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), _EXT),
    "xfs": _XFS,
    "btrfs": _BTRFS,
    "swap": "swaplabel -U {uuid} {device}\n",
    "vfat": "fatlabel -i {device} {serial}\n",
    "crypto_LUKS": "cryptsetup -q luksUUID --uuid {uuid} {device}\n",
}

_RENEW = """
{close}
lvm vgchange -q -an || exit 1
lvm pvchange -q -u --all || exit 1
lvm vgchange -q -u || exit 1
lvm vgchange -q -ay --sysinit || exit 1
"""
_IDS = """
lvm pvs -q --noheadings --separator '|' -o pv_uuid,pv_name 2>/dev/null
lvm vgs -q --noheadings --separator '|' -o vg_uuid,vg_name 2>/dev/null
exit 0
"""


def set_uuid(appliance: Appliance, device: str, kernel: str, kind: str, uuid: str) -> None:
    """Give the ``kind`` (libblkid's name) on ``device`` another UUID; ``kernel`` is its path.

    ``uuid`` is as libblkid shows it, of vfat ``XXXX-XXXX``.  Raises GuestOperationError.
    """
    words = {"device": shlex.quote(kernel), "uuid": shlex.quote(uuid)}
    words["serial"] = shlex.quote(uuid.replace("-", ""))
    script = _SCRIPTS[kind]
    for name, word in words.items():
        script = script.replace(f"{{{name}}}", word)
    _run(appliance, script, f"{device}: its UUID cannot be changed")


def renew_lvm(appliance: Appliance, opened: list[str]) -> dict[str, str]:
    """Give every PV and VG a random id; old ids to new ones, both without dashes.

    The volume groups are inactive meanwhile; ``opened`` are the names of LUKS volumes that lie on
    them, which are closed first.  Raises GuestOperationError.
    """
    before = _ids(appliance)
    close = "\n".join(f"cryptsetup close {shlex.quote(name)} || exit 1" for name in opened)
    _run(appliance, _RENEW.replace("{close}", close), "the ids of LVM cannot be changed")
    after = {thing: uuid for uuid, thing in _ids(appliance).items()}
    return {old: after[thing] for old, thing in before.items() if thing in after}


def _ids(appliance: Appliance) -> dict[str, str]:
    """Ids of LVM to what has them: a device, or a volume group."""
    rows = appliance.shell(_IDS, what="LVM's ids").decode(errors="replace").splitlines()
    pairs = [row.strip().split("|", 1) for row in rows if "|" in row]
    return {uuid.replace("-", ""): thing for uuid, thing in pairs}


def _run(appliance: Appliance, script: str, failure: str) -> None:
    wrapped = f'(\n{script}\n) </dev/null 2>&1\necho "@@$?"\nudevadm settle\nexit 0\n'
    raw = appliance.shell(f"export LC_ALL=C\n{wrapped}", what="a change", timeout=TIMEOUT)
    text, _, status = raw.decode(errors="replace").rpartition("@@")
    if status.strip() != "0":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise GuestOperationError(f"{failure}: {'; '.join(lines[-2:])[:300] or 'no reason given'}")
