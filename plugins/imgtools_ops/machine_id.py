"""The ID of the installation."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_paths, rewrite

ETC = b"/etc/machine-id"
DBUS = b"/var/lib/dbus/machine-id"
# machine-id(5), from systemd 247 on: a new ID is written in its place at the next boot, which is
# taken for the first one.  Older versions, which do not know the word, take it for no ID.
FIRST_BOOT = b"uninitialized\n"
# No ID either, but no first boot.
NO_ID = b""

# At a first boot this program asks on the console for what is not set, and the boot waits.
UNITS = tuple(
    f"{folder}/systemd/system/systemd-firstboot.service" for folder in ("/etc", "/usr/lib", "/lib")
)
ASKED = {  # systemd-firstboot(1), with Debian's places
    b"--prompt-locale": ("/etc/locale.conf", "/etc/default/locale"),
    b"--prompt-keymap": ("/etc/vconsole.conf", "/etc/default/keyboard"),
    b"--prompt-timezone": ("/etc/localtime",),
    b"--prompt-hostname": ("/etc/hostname",),
    b"--prompt-root-password": ("/etc/shadow",),
}


def _asks(guest: Guest) -> bool:
    """True if a first boot would wait for somebody at the console."""
    unit = next(guest.glob(*UNITS), None)
    # A mask is a link to /dev/null.
    if unit is None or not guest.tree.is_file(unit):
        return False
    words = (guest.read(unit) or b"").split()
    return any(option in words and not any(guest.glob(*paths)) for option, paths in ASKED.items())


def _is_plain(guest: Guest, path: bytes) -> bool:
    return any(stat.S_ISREG(guest.tree.lstat(one).mode) for one in guest.glob(path.decode()))


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    if _is_plain(guest, ETC):
        content = NO_ID if _asks(guest) else FIRST_BOOT
        yield from rewrite(guest, ETC, lambda _: content)
    # A link leads to /etc/machine-id; a file of its own would be kept by D-Bus, and is even
    # where systemd looks for an ID.
    if _is_plain(guest, DBUS):
        yield from remove_paths(guest, [DBUS])


operation = Operation(
    name="machine-id",
    heading="Make systemd give the machine a new ID",
    description="/etc/machine-id says 'uninitialized', and D-Bus's own copy is removed. With one "
    "ID, clones get the same address by DHCP and mix up their journals. Where the first boot would "
    "ask at the console for a locale or time zone that is not set, the file is emptied instead. "
    "Done last, so that nothing writes an ID after it.",
    order=99,
    plan=_plan,
)
