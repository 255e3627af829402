"""``--sm-*``: subscriptions of Red Hat, by the guest's own subscription-manager(8).

It runs in the appliance and needs the network.  A password is piped into it, so that neither the
host nor the guest's own programs see it among arguments of subscription-manager.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field, replace
from functools import lru_cache

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize.base import Settings
from imgtools.guest.customize.chroot import ran_done, run_checked
from imgtools.guest.customize.host_files import read_secret
from imgtools.guest.customize.system import find_system
from imgtools.guest.steps import Done, Step
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

PROGRAMS = (b"/usr/sbin/subscription-manager", b"/usr/bin/subscription-manager")
CONSUMER = b"/etc/pki/consumer/cert.pem"
"""The certificate of a registered system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user at Red Hat; the password is in no repr."""

    user: str
    password: bytes = field(repr=False)


@lru_cache(maxsize=4)  # the setting is checked, then used: a file is read once
def parse_credentials(value: str) -> Credentials:
    """``USER:password:TEXT`` or ``USER:file:NAME``.  Raises UsageError, without the password."""
    option = "--sm-credentials"
    user, _, selector = value.partition(":")
    word, colon, rest = selector.partition(":")
    if user and word == "file" and rest:
        password = read_secret(rest, option)
    elif user and word == "password" and colon and rest:
        password = os.fsencode(rest)
    else:
        raise UsageError(f"{option}: no credentials", hint="USER:file:NAME or USER:password:TEXT")
    if b"\n" in password or b"\0" in password:
        raise UsageError(f"{option}: the password holds a line break")
    return Credentials(user=user, password=password)


def parse_register(_value: str) -> Manage:
    """A flag; `with_credentials` completes the step."""
    return Manage(option="--sm-register", words=("register",))


def parse_attach(value: str) -> Manage:
    """``auto``, ``pool:ID`` or ``file:NAME``.  Raises UsageError."""
    option = "--sm-attach"
    word, _, rest = value.partition(":")
    if value == "auto":
        return Manage(option=option, words=("attach", "--auto"))
    if word == "file" and rest:
        rest = os.fsdecode(read_secret(rest, option).strip())
    elif word != "pool" or not rest:
        raise UsageError(f"{option}: no pool", hint="auto, pool:ID or file:NAME")
    return Manage(option=option, words=("attach", f"--pool={rest}"))


def parse_remove(_value: str) -> Manage:
    """A flag."""
    return Manage(option="--sm-remove", words=("remove", "--all"))


def parse_unregister(_value: str) -> Manage:
    """A flag."""
    return Manage(option="--sm-unregister", words=("unregister",), registered=True)


def with_credentials(step: Step, settings: Settings) -> Step:
    """The step with ``--sm-credentials``.  Raises UsageError without them."""
    value = settings.get("sm-credentials")
    if value is None:
        raise UsageError("--sm-register: needs credentials", hint="--sm-credentials USER:file:NAME")
    return replace(step, credentials=parse_credentials(value)) if isinstance(step, Manage) else step


@dataclass(frozen=True, slots=True, kw_only=True)
class Manage:
    """One call of subscription-manager; ``registered``: idle where the system is not."""

    option: str
    words: tuple[str, ...]
    credentials: Credentials | None = None
    registered: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """Never certain but for what needs a registration; that it cannot be is known at once."""
        _require(tree, self.option)
        return self.registered and not tree.exists(CONSUMER)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Run it.  Raises GuestOperationError with what it said."""
        program = _require(guest, self.option)
        if self.registered and not guest.exists(CONSUMER):
            return []
        words = [os.fsdecode(program), *self.words]
        script, source = b"", b" < /dev/null"
        if self.credentials is not None:
            words.append(f"--username={self.credentials.user}")
            secret = shlex.quote(os.fsdecode(self.credentials.password))
            script, source = os.fsencode(f"printf '%s\\n' {secret} | "), b""
        script += os.fsencode(shlex.join(words)) + source
        run_checked(guest, script, what=self.option)
        return ran_done(f"subscription-manager {' '.join(self.words)}")


def _require(tree: GuestTree, option: str) -> bytes:
    """Where subscription-manager is.  Raises GuestOperationError for a guest without it."""
    system = find_system(tree, option)
    for path in PROGRAMS:
        if tree.is_file(path):
            return path
    what = "install it" if system.is_red_hat else "it is for RHEL and its kin"
    raise GuestOperationError(f"{option}: {system.name} has no subscription-manager", hint=what)
