"""Options that run programs of the guest, and those for packages."""

from __future__ import annotations

import os
from dataclasses import replace

from imgtools.errors import UsageError
from imgtools.guest.customize import repository
from imgtools.guest.customize.base import Custom, Row, Setting, Settings
from imgtools.guest.customize.command_steps import Command, Packages, Script
from imgtools.guest.customize.values import host_file, packages
from imgtools.guest.steps import Step


def _command(value: str) -> Step:
    if not value.strip():
        raise UsageError("names no command")
    if "\0" in value:
        raise UsageError("a command holds no NUL")
    return Command(command=value)


def _from_folder(step: Step, settings: Settings) -> Step:
    word = settings.get("repository")
    if word is None or not isinstance(step, Packages):
        return step
    return replace(step, folder=repository.check_folder(word))


def _shown(step: Step) -> bytes:
    return os.fsencode(step.what) if isinstance(step, Command | Script | Packages) else b""


def _needs_network(settings: Settings) -> bool:
    return "repository" not in settings


COMMANDS: tuple[Row, ...] = (
    Custom(
        name="run",
        metavar="SCRIPT",
        help="Run a script or program of this host in the guest.",
        parse=lambda value: Script(file=host_file(value)),
        verb="ran",
        shown=_shown,
    ),
    Custom(
        name="run-command",
        metavar="CMD",
        help="Run a shell command of the guest.",
        parse=_command,
        verb="ran",
        shown=_shown,
    ),
    Custom(
        name="install",
        metavar="PKG,PKG..",
        help="Install packages by the guest's package manager.",
        parse=lambda value: Packages(task="install", names=packages(value)),
        verb="ran",
        shown=_shown,
        tuned=_from_folder,
        network=_needs_network,
    ),
    Custom(
        name="uninstall",
        metavar="PKG,PKG..",
        help="Remove packages.",
        parse=lambda value: Packages(task="uninstall", names=packages(value)),
        verb="ran",
        shown=_shown,
    ),
    Custom(
        name="update",
        metavar=None,
        help="Update all packages.",
        parse=lambda _value: Packages(task="update"),
        verb="ran",
        shown=_shown,
        tuned=_from_folder,
        network=_needs_network,
    ),
    Setting(
        name="repository",
        metavar="DIR",
        help="Install and update from a folder of package files of this host, offline.",
        check=repository.check_folder,
    ),
    Setting(
        name="network",
        metavar=None,
        help="Give commands a network (else only --install and --update have one).",
    ),
    Setting(name="no-network", metavar=None, help="Give nothing a network."),
    Setting(
        name="no-logfile",
        metavar=None,
        help="For virt-customize's sake: no log is ever left in the guest.",
    ),
)
