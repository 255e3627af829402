"""Options that make a guest this machine: passwords, keys, names, first boot, labels."""

from __future__ import annotations

import os

from imgtools.guest.customize import (
    boot_services,
    firstboot,
    hostname,
    password,
    rhsm,
    selinux,
    ssh_inject,
    timezone,
)
from imgtools.guest.customize.base import Custom, Row, Setting, Settings
from imgtools.guest.steps import Step


def _shadow(_step: Step) -> bytes:
    return password.SHADOW


def _always(_settings: Settings) -> bool:
    return True


def _subscriptions(step: Step) -> bytes:
    words = step.words if isinstance(step, rhsm.Manage) else ()
    return b"subscription-manager " + os.fsencode(" ".join(words))


IDENTITY: tuple[Row, ...] = (
    Custom(
        name="root-password",
        metavar="SELECTOR",
        help="Set root's password: file:NAME, password:TEXT, random, disabled, locked, locked:…",
        parse=password.parse_root_password,
        verb="edited",
        shown=_shadow,
        tuned=password.with_crypto,
    ),
    Custom(
        name="password",
        metavar="USER:SELECTOR",
        help="Set the password of a user that exists; SELECTOR as for --root-password.",
        parse=password.parse_password,
        verb="edited",
        shown=_shadow,
        tuned=password.with_crypto,
    ),
    Setting(
        name="password-crypto",
        metavar="METHOD",
        help="Hash of passwords: md5, sha256, sha512, yescrypt [default: the guest's best].",
        check=password.parse_crypto,
    ),
    Custom(
        name="ssh-inject",
        metavar="USER[:SELECTOR]",
        help="Let USER log in by a key: string:KEY or file:NAME [default: your newest public key].",
        parse=ssh_inject.parse,
    ),
    Custom(
        name="hostname",
        metavar="NAME",
        help="Set the host name, with the domain or without.",
        parse=hostname.parse,
        verb="edited",
        shown=lambda _step: b"/etc/hostname",
    ),
    Custom(
        name="timezone",
        metavar="ZONE",
        help="Set the time zone, as Europe/London.",
        parse=timezone.parse,
        verb="made",
        shown=lambda _step: timezone.LOCALTIME,
    ),
    Custom(
        name="firstboot",
        metavar="SCRIPT",
        help="Run this script of the host once, as root, when the guest boots next.",
        parse=firstboot.parse_script,
        verb="written",
        shown=lambda _step: boot_services.SCRIPTS,
    ),
    Custom(
        name="firstboot-command",
        metavar="COMMAND",
        help="Run this shell command once, as root, when the guest boots next.",
        parse=firstboot.parse_command,
        verb="written",
        shown=lambda _step: boot_services.SCRIPTS,
    ),
    Custom(
        name="firstboot-install",
        metavar="PKG,PKG..",
        help="Install packages when the guest boots next, by its own network.",
        parse=firstboot.parse_install,
        verb="written",
        shown=lambda _step: boot_services.SCRIPTS,
    ),
    Setting(
        name="sm-credentials",
        metavar="SELECTOR",
        help="For --sm-register: USER:file:NAME or USER:password:TEXT.",
        check=rhsm.parse_credentials,
    ),
    Custom(
        name="sm-register",
        metavar=None,
        help="Register the guest with subscription-manager (RHEL; needs the network).",
        parse=rhsm.parse_register,
        verb="ran",
        shown=_subscriptions,
        network=_always,
        tuned=rhsm.with_credentials,
    ),
    Custom(
        name="sm-attach",
        metavar="SELECTOR",
        help="Attach subscriptions: auto, pool:ID or file:NAME.",
        parse=rhsm.parse_attach,
        verb="ran",
        shown=_subscriptions,
        network=_always,
    ),
    Custom(
        name="sm-remove",
        metavar=None,
        help="Remove all subscriptions from the guest.",
        parse=rhsm.parse_remove,
        verb="ran",
        shown=_subscriptions,
        network=_always,
    ),
    Custom(
        name="sm-unregister",
        metavar=None,
        help="Unregister the guest.",
        parse=rhsm.parse_unregister,
        verb="ran",
        shown=_subscriptions,
        network=_always,
    ),
    Custom(
        name="selinux-relabel",
        metavar=None,
        help="Give all files their SELinux labels, at the end; at the next boot if need be.",
        parse=selinux.parse,
        shown=lambda _step: b"/",
        last=True,
    ),
)
"""In the order of the help text."""
