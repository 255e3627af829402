"""``--root-password`` and ``--password``: a new password, or none, for an account of the guest.

The selectors are those of virt-customize (virt-builder(1), "USERS AND PASSWORDS").  shadow(5) is
edited in place: every other line and field stays byte for byte, and so do mode, owner and label.

A locked account gets one ``!``, as passwd -l writes it and passwd -u of every distribution takes
away; virt-customize's ``!!`` stays locked on Debian.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from imgtools.errors import GuestFileNotFoundError, GuestOperationError, UsageError
from imgtools.guest.customize.base import Settings
from imgtools.guest.customize.crypto import choose_method
from imgtools.guest.customize.hashing import (
    METHODS,
    PREFIXES,
    Method,
    check_password,
    hash_password,
    verifies,
)
from imgtools.guest.customize.host_files import read_secret
from imgtools.guest.customize.system import MAX_TEXT, find_system, read_text
from imgtools.guest.steps import Done, Step
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import Ears, GuestFiles

SHADOW = b"/etc/shadow"
FORMS = "password:TEXT, file:NAME, random, disabled, locked or locked: before one of these"
# Without what looks alike: 0 O o, 1 I l.
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"
_RANDOM_LENGTH = 21
"""Characters; 21 of 56 are 121 bits."""
_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What the password field becomes; a password is in no repr."""

    kind: Literal["given", "random", "disabled"]
    locked: bool = False
    password: bytes = field(default=b"", repr=False)


def parse_root_password(value: str) -> SetPassword:
    """``SELECTOR``.  Raises UsageError."""
    option = "--root-password"
    return SetPassword(user="root", selector=parse_selector(value, option), option=option)


def parse_password(value: str) -> SetPassword:
    """``USER:SELECTOR``.  Raises UsageError."""
    option = "--password"
    user, colon, selector = value.partition(":")
    if not user or not colon:
        # Not the value: somebody may have left the user out.
        raise UsageError(f"{option}: expected USER:SELECTOR", hint=f"SELECTOR is {FORMS}")
    if any(character in user for character in "\n\0/"):
        raise UsageError(f"{option}: {user!r} is no name of a user")
    return SetPassword(user=user, selector=parse_selector(selector, option), option=option)


def parse_crypto(value: str) -> Method:
    """The value of ``--password-crypto``.  Raises UsageError."""
    for method in METHODS:
        if value == method:
            return method
    raise UsageError(f"--password-crypto: {value}: no such method", hint=", ".join(METHODS))


def parse_selector(value: str, option: str) -> Selector:
    """A selector; a file is read now.  No message shows the value.  Raises UsageError."""
    word, colon, rest = value.partition(":")
    if word in ("lock", "locked"):
        if not colon:
            return Selector(kind="disabled", locked=True)
        return replace(parse_selector(rest, option), locked=True)
    if word in ("disable", "disabled") and not colon:
        return Selector(kind="disabled")
    if word == "random" and not colon:
        return Selector(kind="random")
    if word == "file" and rest:
        password = read_secret(rest, option)
    elif word == "password" and colon:
        password = os.fsencode(rest)
    else:
        raise UsageError(f"{option}: no such selector", hint=FORMS)
    check_password(password, option)
    return Selector(kind="given", password=password)


def with_crypto(step: Step, settings: Settings) -> Step:
    """The step with the method of ``--password-crypto``."""
    method = settings.get("password-crypto")
    if method is None or not isinstance(step, SetPassword):
        return step
    return replace(step, crypto=parse_crypto(method))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPassword:
    """Set the password of ``user``; ``crypto`` is the method, None for the guest's best.

    A random password is given to the guest's ears, and kept nowhere else.
    """

    user: str
    selector: Selector
    option: str
    crypto: Method | None = None

    def idle(self, tree: GuestTree) -> bool:
        """True if the account has this very password, by this method, already."""
        method, content = self._look(tree)
        return self._fits(_field(content, self._name, self.option), method)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Edit shadow(5)."""
        method, content = self._look(guest)
        if self._fits(_field(content, self._name, self.option), method):
            return []
        secret, what = self._secret(method, guest.ears)
        if self.selector.locked:
            secret, what = b"!" + secret, f"{what}, locked"
        today = b"%d" % (int(time.time()) // _DAY)
        guest.create(SHADOW, [_with_field(content, self._name, secret, today)])
        return [Done(verb="edited", path=SHADOW, detail=f"password of {self.user}: {what}")]

    @property
    def _name(self) -> bytes:
        return os.fsencode(self.user)

    def _look(self, tree: GuestTree) -> tuple[Method, bytes]:
        """The method, and the content of /etc/shadow, in which the user is."""
        system = find_system(tree, self.option)
        method = choose_method(tree, system, self.crypto, self.option)
        _require_shadowed(tree, self._name, self.option)
        try:
            return method, tree.read(SHADOW, limit=MAX_TEXT)
        except GuestFileNotFoundError:
            raise GuestOperationError(
                f"{self.option}: the guest has no /etc/shadow", hint="pwconv in the guest makes it"
            ) from None

    def _fits(self, present: bytes, method: Method) -> bool:
        chosen = self.selector
        locked = present.startswith(b"!")
        if chosen.kind == "random" or locked is not chosen.locked:
            return False
        rest = present.removeprefix(b"!")
        if chosen.kind == "disabled":
            return rest == b"*"
        return rest.startswith(PREFIXES[method]) and verifies(chosen.password, rest)

    def _secret(self, method: Method, ears: Ears) -> tuple[bytes, str]:
        """The password field without a lock, and what it is."""
        if self.selector.kind == "disabled":
            return b"*", "disabled"
        password = self.selector.password
        if self.selector.kind == "random":
            text = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
            if ears.tells is None:
                raise UsageError(f"{self.option}: nobody would be told a random password")
            ears.tells(f"random password of {self.user}: {text}")
            password = text.encode()
        return hash_password(password, method), f"set ({method})"


def _require_shadowed(tree: GuestTree, name: bytes, option: str) -> None:
    """Raise GuestOperationError unless passwd(5) has the user, with the password elsewhere."""
    shown = os.fsdecode(name)
    for line in (read_text(tree, b"/etc/passwd") or b"").split(b"\n"):
        fields = line.split(b":")
        if fields[0] != name or len(fields) < 7:
            continue
        if fields[1] != b"x":
            raise GuestOperationError(
                f"{option}: the password of {shown} is in /etc/passwd, not in /etc/shadow",
                hint="pwconv in the guest moves it",
            )
        return
    raise GuestOperationError(
        f"{option}: the guest has no user {shown}", hint="a password makes no user: useradd does"
    )


def _field(content: bytes, name: bytes, option: str) -> bytes:
    """The password field of a user.  Raises GuestOperationError."""
    line = _line(content, name)
    if line is None or line.count(b":") < 2:
        what = "has no line for" if line is None else "is damaged in the line of"
        raise GuestOperationError(
            f"{option}: the guest's /etc/shadow {what} {os.fsdecode(name)}",
            hint="pwconv in the guest mends it",
        )
    return line.split(b":", 2)[1]


def _line(content: bytes, name: bytes) -> bytes | None:
    """The first line counts, as for getspnam(3)."""
    lines = content.split(b"\n")
    return next((line for line in lines if line.startswith(name + b":")), None)


def _with_field(content: bytes, name: bytes, secret: bytes, today: bytes) -> bytes:
    """The content with the user's new password field and day of change."""
    lines = content.split(b"\n")
    at = lines.index(_line(content, name) or b"")
    fields = lines[at].split(b":")
    fields[1:3] = [secret, today]
    lines[at] = b":".join(fields)
    return b"\n".join(lines)
