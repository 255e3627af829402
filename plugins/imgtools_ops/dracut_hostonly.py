"""What the initramfs and the kernel's command line have of this one machine: a report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, find_in_initramfs, note

IMAGES = (
    "/boot/initr*",
    "/boot/initramfs*",
    "/boot/*/*/initrd",
    "/boot/efi/*/*/initrd",
    "/efi/*/*/initrd",
)

# What an initramfs may hold a copy of.  dracut(8), initramfs-tools(7), dropbear-initramfs.
INSIDE = (
    (rb"etc/machine-id", "the machine's ID"),
    (rb"etc/cmdline\.d/[^\0/]+", "kernel options found on this machine"),
    (rb"etc/iscsi/initiatorname\.iscsi|etc/iscsi\.initramfs", "the name of the iSCSI initiator"),
    (rb"etc/nvme/host(?:id|nqn)", "the NVMe ID of the host"),
    (rb"etc/lvm/devices/system\.devices", "LVM's list of this machine's devices"),
    (rb"etc/udev/rules\.d/[^\0/]*persistent-net\.rules", "names of network cards"),
    (rb"etc/systemd/network/[^\0/]+\.link", "names of network cards"),
    (rb"etc/dropbear/dropbear_[^\0/]*_host_key|etc/ssh/ssh_host_[^\0/]*_key", "an SSH host key"),
    (rb"(?:usr/)?lib/dracut/hostonly-[^\0/]+", "only the drivers for this machine's devices"),
)
# A file's header in a cpio archive of the kind newc, with its size and name: cpio(5).
HEADER = rb"07070[12][0-9A-Fa-f]{48}([0-9A-Fa-f]{8})[0-9A-Fa-f]{48}(?:\./)?(%s)\0"
NAMES = re.compile(HEADER % b"|".join(name for name, _ in INSIDE))
LONGEST = 110 + 256

# Lines of configuration: patterns of files, what they say, what that means.
LINES = (
    (
        "/etc/dracut.conf /etc/dracut.conf.d/*.conf /usr/lib/dracut/dracut.conf.d/*.conf",
        rb"^[ \t]*hostonly=[\"']?(?:yes|sloppy|strict)",
        "dracut takes only the drivers for the machine it runs on",
    ),
    (
        "/etc/dracut.conf /etc/dracut.conf.d/*.conf /usr/lib/dracut/dracut.conf.d/*.conf",
        rb"^[ \t]*hostonly_cmdline=[\"']?yes",
        "dracut puts this machine's kernel options into the initramfs",
    ),
    (
        "/etc/initramfs-tools/initramfs.conf /etc/initramfs-tools/conf.d/*",
        rb"^[ \t]*MODULES=[\"']?dep",
        "update-initramfs takes only the drivers for the machine it runs on",
    ),
    (
        "/etc/initramfs-tools/conf.d/*",
        rb"^[ \t]*RESUME=[\"']?(?!none|auto)\S+",
        "the swap space that the machine wakes up from",
    ),
    (
        "/etc/mkinitcpio.conf /etc/mkinitcpio.conf.d/*.conf",
        rb"^[ \t]*HOOKS=[^\n#]*\bautodetect\b",
        "mkinitcpio takes only the drivers for the machine it runs on",
    ),
    ("/etc/cmdline.d/*.conf", rb"\S.*", "kernel options for this machine's initramfs"),
    ("/etc/iscsi/iscsi.initramfs", rb"^[^#\n]*\S", "the iSCSI disk that the machine boots from"),
)
COMMAND_LINES = (
    *("/etc/kernel/cmdline", "/etc/default/grub", "/etc/default/grub.d/*.cfg"),
    *("/boot/loader/entries/*.conf", "/boot/efi/loader/entries/*.conf", "/efi/loader/entries/*"),
    *("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/etc/dracut.conf.d/*.conf"),
)
# dracut.cmdline(7), kernel-command-line(7).
OPTION = re.compile(
    rb"(?<![\w.])(?:(?:ifname|BOOTIF)=\S{0,64}?[0-9A-Fa-f]{2}[:-]\S+|ip=\d+\.\S+|rd\.iscsi\.initiator=\S+"
    rb"|netroot=iscsi:\S+|rd\.znet=\S+|systemd\.(?:machine_id|hostname)=\S+)"
)
KEYS = ("/etc/dropbear/initramfs/*_host_key", "/etc/dropbear-initramfs/*_host_key")
ENTRY = re.compile(rb"/[0-9a-f]{32}-[^/]+\.conf\Z")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob(*IMAGES):
        if guest.tree.is_file(path) and guest.tree.resolve(path) == path:
            yield from _inside(guest, path)
    for patterns, line, meaning in LINES:
        for path in guest.glob(*patterns.split()):
            if guest.tree.is_file(path):
                found = re.search(line + rb"[^\n#]*", guest.read(path) or b"", re.MULTILINE)
                if found:
                    yield from note(path, f"{meaning}: {_shown(found[0])}")
    for path in guest.glob(*COMMAND_LINES):
        if guest.tree.is_file(path):
            for option in sorted(set(OPTION.findall(guest.read(path) or b""))):
                yield from note(path, f"a kernel option for this machine: {_shown(option)}")
    for path in guest.glob(*KEYS):
        yield from note(path, "an SSH host key for the initramfs, which clones would share")
    named = [path for path in guest.glob("/boot/loader/entries/*") if ENTRY.search(path)]
    if named:
        yield from note(named[0], "boot entries have the machine's ID in their names")


def _inside(guest: Guest, path: bytes) -> Iterator[Action]:
    # An empty /etc/machine-id is no ID.
    names = {
        name for size, name in find_in_initramfs(guest, path, NAMES, LONGEST) if int(size, 16) > 1
    }
    for pattern, meaning in INSIDE:
        held = sorted(name for name in names if re.fullmatch(pattern, name))
        if held:
            more = f" and {len(held) - 1} more" if len(held) > 1 else ""
            yield from note(path, f"holds {meaning}: {_shown(held[0])}{more}")


def _shown(text: bytes) -> str:
    return text.strip()[:200].decode("utf-8", errors="backslashreplace")


operation = Operation(
    name="dracut-hostonly",
    heading="Report what the initramfs has of this one machine",
    description="Changes nothing: says what the initramfs, its configuration and the kernel's "
    "command line have that is this machine's (its ID, host keys, names, addresses, drivers); only "
    "an initramfs that is made anew in a clone is without it.",
    plan=_plan,
)
