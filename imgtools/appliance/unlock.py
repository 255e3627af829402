"""Open LUKS volumes with the keys given, under the names that the virt tools give them.

common/options/decrypt.c of guestfs-tools 1.48: a partition ``/dev/sda2`` opens as ``cryptsda2``, a
logical volume as ``luks-UUID``.  A passphrase goes to libguestfs's own call, which keeps it out of
its logs; a key file that holds a NUL byte cannot, and goes through the appliance's shell.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import CallError
from imgtools.appliance.survey import Device, Survey
from imgtools.model.disks import KeySpec
from imgtools.model.notices import Notice


def unlock(
    appliance: Appliance,
    survey: Survey,
    keys: Sequence[KeySpec],
    mapped: dict[str, str],
    notices: list[Notice],
) -> bool:
    """Open every LUKS volume that a key fits; add device and mapped name to ``mapped``.

    Returns True if something was opened, so that there is more to see.
    """
    opened = False
    for device in survey.devices.values():
        if device.facts.get("ID_FS_TYPE") != "crypto_LUKS":
            continue
        path = _path_of(device, survey)
        if path in mapped:
            continue
        uuid = device.facts.get("ID_FS_UUID", "")
        name = f"luks-{uuid}" if device.dm_uuid.startswith("LVM-") and uuid else _map_name(path)
        # A wrong key costs seconds of key derivation: those meant for this device go first.
        for key in sorted(keys, key=lambda one: one.id == "all"):
            if _fits(key, path, uuid) and _open(
                appliance, (path, device.kernel_path), key.secret, name, notices
            ):
                mapped[path] = f"/dev/mapper/{name}"
                opened = True
                break
    return opened


def _path_of(device: Device, survey: Survey) -> str:
    for row in survey.lvm("lv"):
        if row.get("lv_dm_path") == device.path:
            return f"/dev/{row['vg_name']}/{row['lv_name']}"
    return device.path


def _map_name(path: str) -> str:
    return "crypt" + "".join(c for c in path.removeprefix("/dev/") if c.isalnum())


def _fits(key: KeySpec, path: str, uuid: str) -> bool:
    return key.id in ("all", path) or (bool(uuid) and key.id.lower() == uuid.lower())


def _open(
    appliance: Appliance,
    paths: tuple[str, str],
    secret: bytes,
    name: str,
    notices: list[Notice],
) -> bool:
    path, kernel = paths
    device, mapname = path.encode(), name.encode()
    try:
        if b"\0" in secret or b"\n" in secret or not secret:
            _open_by_shell(appliance, kernel, secret, name)
        else:
            appliance.call(
                lambda lib: lib.status("luks_open", device, secret, mapname),
                what=f"opening {path}",
            )
    except CallError as error:
        if "No key available" not in error.message:
            line = error.message.splitlines()[-1] if error.message else "unknown error"
            notices.append(Notice(code="volume.luks", message=f"{path}: {line}"))
        return False
    return True


def _open_by_shell(appliance: Appliance, path: str, secret: bytes, name: str) -> None:
    # printf is the shell's own, so that the key is in no argument list; octal holds any byte.
    octal = "".join(f"\\{byte:03o}" for byte in secret)
    appliance.shell(
        f"printf '{octal}' | cryptsetup -q open --type luks --key-file=- "
        f"'{path}' '{name}' && udevadm settle",
        what=f"opening {path}",
    )
