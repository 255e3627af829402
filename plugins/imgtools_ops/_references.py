"""What a guest finds its filesystems by: every file that may name an id."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO

from imgtools.api import (
    Action,
    Guest,
    GuestOperationError,
    core_text,
    link,
    move,
    remove_paths,
    rewrite,
    rewrite_initramfs,
)
from imgtools_ops._ids import Ids

_ESP = ("/boot/efi", "/efi", "/boot")
_GRUB = ("/boot/grub", "/boot/grub2")

TEXTS = (
    *("/etc/fstab", "/etc/fstab.d/*", "/etc/crypttab", "/etc/auto.*", "/etc/auto.master.d/*"),
    *("/etc/default/*", "/etc/default/grub.d/*", "/etc/grub.d/*", "/etc/kernel/cmdline*"),
    *("/etc/kernel/*.conf", "/etc/cmdline.d/*", "/etc/dracut.conf", "/etc/dracut.conf.d/*"),
    *("/etc/mkinitcpio.conf", "/etc/mkinitcpio.conf.d/*", "/etc/mkinitcpio.d/*"),
    *("/etc/mkinitfs/*", "/etc/initramfs-tools/*", "/etc/initramfs-tools/conf.d/*"),
    *("/etc/sysconfig/*", "/etc/udev/rules.d/*", "/etc/multipath.conf", "/etc/multipath/*"),
    *("/etc/cryptsetup-initramfs/*", "/etc/cryptsetup-nuke-password/*", "/etc/hdparm.conf"),
    *("/etc/lvm/devices/*", "/etc/lvm/backup/*", "/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf"),
    *("/etc/systemd/*.conf", "/etc/systemd/*.conf.d/*", "/etc/repart.d/*", "/etc/mdadm.conf"),
    *("/etc/sysupdate.d/*", "/etc/elilo.conf", "/etc/extlinux.conf", "/etc/update-extlinux.conf"),
    *("/etc/u-boot*", "/etc/kdump.conf", "/etc/snapper/configs/*", "/etc/btrbk/*"),
    *(f"{grub}/{name}" for grub in _GRUB for name in ("*.cfg", "grubenv", "*/load.cfg")),
    *("/boot/grub/menu.lst", "/boot/grub/grub.conf", "/boot/*/*.conf", "/boot/*/*.cfg"),
    *("/boot/*.conf", "/boot/*.cfg", "/boot/*.txt", "/boot/firmware/*.txt"),
    *(f"{esp}/loader/*.conf" for esp in _ESP),
    *(f"{esp}/loader/entries/*.conf" for esp in _ESP),
    *(f"{esp}/[eE][fF][iI]/*/{name}" for esp in _ESP for name in ("*.cfg", "*.conf", "grubenv")),
    *(f"{esp}/[eE][fF][iI]/*/*/*.cfg" for esp in _ESP),
)
"""Configuration that may name a filesystem; of these, regular files only."""

UNITS = ("/etc/systemd/system/*", "/etc/systemd/system/*/*")
"""Units, which may also have an id in their name."""

INITRAMFS = (
    *("/boot/initrd*", "/boot/initramfs*", "/boot/*/*/initrd*", "/boot/*/*/initramfs*"),
    *(f"{esp}/*/*/initrd*" for esp in _ESP[:2]),
    *(f"{esp}/[eE][fF][iI]/*/{name}*" for esp in _ESP for name in ("initrd", "initramfs")),
    *("/usr/lib/modules/*/initrd*", "/usr/lib/modules/*/initramfs*", "/var/lib/kdump/initr*"),
)
_PROGRAMS = (
    *(f"{esp}/[eE][fF][iI]/*/*.[eE][fF][iI]" for esp in _ESP),
    *(f"{esp}/[eE][fF][iI]/*.[eE][fF][iI]" for esp in _ESP),
    *(f"{grub}/*-efi/*.efi" for grub in _GRUB),
)
_CORES = tuple(
    f"{grub}/{name}" for grub in _GRUB for name in ("*/core.img", "*/core.elf", "grub", "grub.elf")
)
MAX_PROGRAM = 16 << 20
"""Bytes of the largest program of the firmware that is rewritten."""
_PIECE = 1 << 20


def references(guest: Guest, ids: Ids) -> Iterator[Action]:
    """Write the new ids wherever the guest names old ones.

    Raises GuestOperationError for what names one and cannot be rewritten.
    """
    if not ids:
        return
    for device in guest.unmounted_esps():
        raise GuestOperationError(
            f"{device} is an EFI system partition that the guest's fstab does not mount: whether "
            "it names the old ids cannot be seen",
            hint=f"mount all of the guest by hand: -m ROOT:/ -m {device}:/boot/efi",
        )
    for path in _files(guest, *_CORES):
        _refuse_core(guest, path, ids)
    for path in _files(guest, "/etc/zipl.conf", "/etc/lilo.conf"):
        if ids.names(guest.read(path) or b""):
            raise _stale(path, "its own program (zipl, lilo), run in the guest,")
    for path in _files(guest, *_PROGRAMS):
        yield from _program(guest, path, ids)
    for path in _files(guest, *TEXTS):
        yield from rewrite(guest, path, ids.replace)
    yield from _units(guest, ids)
    for path in _files(guest, *INITRAMFS):
        yield from rewrite_initramfs(guest, path, ids.text)


def _stale(path: bytes, tool: str) -> GuestOperationError:
    shown = path.decode("utf-8", errors="surrogateescape")
    return GuestOperationError(
        f"{shown}: names an old id where only {tool} could change it, and without that the guest "
        "would not boot"
    )


def _files(guest: Guest, *patterns: str) -> Iterator[bytes]:
    """The regular files that patterns match, each once, whatever links lead to it."""
    seen = set()
    for path in guest.glob(*patterns):
        if guest.tree.is_file(path):
            resolved = guest.tree.resolve(path)
            if resolved not in seen:
                seen.add(resolved)
                yield resolved


# --- units ---------------------------------------------------------------------------------------


def _units(guest: Guest, ids: Ids) -> Iterator[Action]:
    """Units that name an id: in their text, in what a link leads to, in their own name.

    What is in a folder comes before the folder itself.
    """
    for path in sorted(guest.glob(*UNITS), key=lambda path: -path.count(b"/")):
        folder, _, name = path.rpartition(b"/")
        to = folder + b"/" + ids.replace(name)
        kind = stat.S_IFMT(guest.tree.lstat(path).mode)
        if kind == stat.S_IFLNK:
            yield from _link(guest, path, to, ids)
            continue
        if kind == stat.S_IFREG:
            yield from rewrite(guest, path, ids.replace)
        if to != path:
            yield from move(path, to)


def _link(guest: Guest, path: bytes, to: bytes, ids: Ids) -> Iterator[Action]:
    target = guest.tree.readlink(path)
    new = ids.replace(target)
    if to != path:
        yield from remove_paths(guest, [path])
    if (to, new) != (path, target):
        yield from link(guest, new.decode("utf-8", errors="surrogateescape"), to)


# --- boot loaders --------------------------------------------------------------------------------


def _program(guest: Guest, path: bytes, ids: Ids) -> Iterator[Action]:
    """A program of the firmware: GRUB's core, or a kernel with its command line, names ids."""
    if guest.tree.stat(path).size > MAX_PROGRAM:
        with guest.tree.open(path) as stream:
            if _names(stream, ids):
                raise _stale(path, "what makes it (ukify, dracut, mkinitcpio)")
        return
    content = guest.read(path) or b""
    if not ids.names(content):
        return
    if _is_signed(content):
        raise _stale(path, "what makes and signs it")
    yield from rewrite(guest, path, ids.replace)


def _refuse_core(guest: Guest, path: bytes, ids: Ids) -> None:
    """GRUB's core outside the firmware is a copy of what the boot sectors have."""
    content = guest.read(path) or b""
    text: bytes | None = content
    if path.endswith(b"/i386-pc/core.img"):
        text = core_text(content)
    if text is None:
        shown = path.decode("utf-8", errors="surrogateescape")
        guest.warn(f"{shown}: whether GRUB's core image names an old id cannot be seen")
    elif ids.names(text):
        raise _stale(path, "grub-install, run in the guest,")


def _names(stream: BinaryIO, ids: Ids) -> bool:
    tail = b""
    while piece := stream.read(_PIECE):
        if ids.names(tail + piece):
            return True
        tail = piece[-ids.text.longest :]
    return False


def _is_signed(program: bytes) -> bool:
    """True if a PE file has a table of certificates (PE format, optional header)."""
    try:
        header = struct.unpack_from("<I", program, 0x3C)[0] + 24
        magic = struct.unpack_from("<H", program, header)[0]
        # The fifth of the data directories, which come after 96 bytes, in PE32+ after 112.
        table = header + (112 if magic == 0x20B else 96) + 4 * 8
        return bool(struct.unpack_from("<I", program, table + 4)[0])
    except struct.error:
        return False
