"""``--firstboot``, ``--firstboot-command``, ``--firstboot-install``: scripts for the next boot.

The runner of `boot_services` runs them as root in the order in which they were given, each once: a
script is moved away before it runs, so that one which reboots the machine does not run again, and
one that cannot be moved (a read-only /usr) does not run at all.  When none is left, all that was
installed removes itself.  The log is where virt-customize's users look for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize.boot_services import (
    SCRIPTS,
    install_service,
    is_installed,
    require_supported,
)
from imgtools.guest.customize.host_files import read_file
from imgtools.guest.customize.package_commands import manager_of
from imgtools.guest.customize.package_commands import script as package_script
from imgtools.guest.customize.placing import make_folders, put_file
from imgtools.guest.customize.system import find_system
from imgtools.guest.customize.values import packages
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

MAX_SCRIPTS = 9999
_NUMBER = re.compile(rb"(\d{4})-")
_SHELL = b"#!/bin/sh\n"


def parse_script(value: str) -> Firstboot:
    """A script of this host, read now.  Raises UsageError."""
    option = "--firstboot"
    content = read_file(value, option)
    if content.partition(b"\n")[0].endswith(b"\r"):
        raise UsageError(
            f"{option}: {value}: has line ends of Windows, which no shell takes", hint="dos2unix"
        )
    return Firstboot(option=option, name=value.rpartition("/")[2], content=content)


def parse_command(value: str) -> Firstboot:
    """A command line for the guest's /bin/sh.  Raises UsageError."""
    option = "--firstboot-command"
    if not value.strip() or "\0" in value:
        raise UsageError(f"{option}: no command")
    return Firstboot(option=option, name=value, content=_SHELL + os.fsencode(value) + b"\n")


def parse_install(value: str) -> InstallLater:
    """Names of packages with commas between.  Raises UsageError."""
    return InstallLater(names=packages(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firstboot:
    """Let a script run once, at the next boot; one that waits there already is not added again.

    ``online``: it needs the network.  ``name`` is for people, and hides nothing.
    """

    option: str
    name: str
    content: bytes = field(repr=False)
    online: bool = False

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError for an init system that is not supported."""
        require_supported(tree, find_system(tree, self.option), self.option)

    def idle(self, tree: GuestTree) -> bool:
        """True if it waits there."""
        self.check(tree)
        return is_installed(tree) and self._waits(tree)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Install what runs scripts, and the script."""
        self.check(guest)
        system = find_system(guest, self.option)
        done = [] if self._waits(guest) else self._add(guest)
        return done + install_service(guest, system, self.option, online=self.online)

    def _add(self, guest: GuestFiles) -> list[Done]:
        done = make_folders(guest, SCRIPTS, 0o700)  # scripts may hold passwords
        number = 1 + max((_number(name) for name in guest.listdir(SCRIPTS)), default=0)
        if number > MAX_SCRIPTS:
            raise GuestOperationError(
                f"{self.option}: the guest has too many scripts for its first boot"
            )
        path = SCRIPTS + b"/%04d-" % number + _safe(self.name)
        return done + put_file(guest, path, self.content, 0o700)

    def _waits(self, tree: GuestTree) -> bool:
        for name in tree.listdir(SCRIPTS)[:MAX_SCRIPTS]:
            path = SCRIPTS + b"/" + name
            same_size = tree.is_file(path) and tree.stat(path).size == len(self.content)
            if same_size and tree.read(path, limit=len(self.content)) == self.content:
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallLater:
    """Let the guest install packages at its next boot, when the network is up."""

    names: tuple[str, ...]
    option: str = "--firstboot-install"

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError for an init system or package manager that is not known."""
        self._script(tree).check(tree)

    def idle(self, tree: GuestTree) -> bool:
        """True if that waits already."""
        return self._script(tree).idle(tree)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Install the script."""
        return self._script(guest).perform(guest)

    def _script(self, tree: GuestTree) -> Firstboot:
        script = package_script(manager_of(tree, self.option), "install", self.names)
        content = _SHELL + b"export DEBIAN_FRONTEND=noninteractive\n" + script
        name = f"install-{'-'.join(self.names)}"
        return Firstboot(option=self.option, name=name, content=content, online=True)


def _number(name: bytes) -> int:
    found = _NUMBER.match(name)
    return int(found[1]) if found else 0


def _safe(name: str) -> bytes:
    """A name that every shell and every filesystem takes, as virt-customize makes them."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.")[:60].encode() or b"script"
