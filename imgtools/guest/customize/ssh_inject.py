"""``--ssh-inject``: let somebody log in to an account over ssh by a key.

sshd's StrictModes (sshd_config(5)) wants ~/.ssh and authorized_keys to belong to the user or root,
and to be writable by nobody else; it reads them as the user.  The home belongs to a user who may be
hostile: nothing is written through a link that leads out of it, nor to a file that has another name
elsewhere.
"""

from __future__ import annotations

import os
import stat as _stat
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import GuestFileTooLargeError, GuestOperationError, UsageError
from imgtools.guest.customize.host_files import read_file
from imgtools.guest.customize.placing import label_of, set_label, with_type
from imgtools.guest.customize.public_keys import blob_of, check_keys, default_key_file
from imgtools.guest.customize.sshd_config import require_usual_place
from imgtools.guest.customize.system import find_system, read_text
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles
from imgtools.model.files import Stat

OPTION = "--ssh-inject"
MAX_KEY_FILE = 1 << 20
SSH_TYPE = b"ssh_home_t"
"""The type of ~/.ssh and below in the policies that descend from SELinux's reference policy."""
FORMS = "USER, USER:file:NAME or USER:string:KEY"


def parse(value: str) -> InjectKeys:
    """``USER[:SELECTOR]``; a file is read now.  Raises UsageError."""
    user, colon, selector = value.partition(":")
    word, second, rest = selector.partition(":")
    if not user or "/" in user or "\n" in user:
        raise UsageError(f"{OPTION}: names no user", hint=FORMS)
    if not colon:
        file = default_key_file(Path.home())
        keys = check_keys(read_file(str(file), OPTION), f"{OPTION}: {file}")
    elif word == "file" and rest:
        keys = check_keys(read_file(rest, OPTION), f"{OPTION}: {rest}")
    elif word == "string" and second:
        keys = check_keys(os.fsencode(rest), OPTION)
    elif word in ("url", "http", "https"):
        raise UsageError(f"{OPTION}: keys are not fetched from the network", hint=FORMS)
    else:
        raise UsageError(f"{OPTION}: no such selector", hint=FORMS)
    return InjectKeys(user=user, keys=keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of a line of passwd(5); ``home`` is resolved."""

    uid: int
    gid: int
    home: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectKeys:
    """Add keys to ``user``'s authorized_keys, each once."""

    user: str
    keys: tuple[bytes, ...]

    def idle(self, tree: GuestTree) -> bool:
        """True if all of them are there."""
        account = find_account(tree, self.user)
        folder, file = _places(tree, account)
        if not tree.exists(file):
            return False
        fine = not _is_loose(tree.stat(folder), account) and not _is_loose(tree.stat(file), account)
        return fine and not self._missing(_read(tree, file))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Make what is not there, and add what is missing."""
        account = find_account(guest, self.user)
        folder, file = _places(guest, account)
        home_label = label_of(guest, account.home)
        label = None if home_label is None else with_type(home_label, SSH_TYPE)
        done = []
        if guest.try_lstat(folder) is None:
            guest.mkdir(folder, 0o700)
            guest.chown(folder, account.uid, account.gid)
            set_label(guest, folder, label)
            done.append(Done(verb="made", path=folder))
        done += _tighten(guest, folder, account, 0o700)
        new = guest.try_lstat(file) is None
        content = b"" if new else _read(guest, file)
        missing = self._missing(content)
        if missing:
            glue = b"" if not content or content.endswith(b"\n") else b"\n"
            guest.create(file, [content + glue + b"".join(key + b"\n" for key in missing)])
            what = f"{len(missing)} key{'s' if len(missing) > 1 else ''} of {self.user}"
            done.append(Done(verb="written" if new else "edited", path=file, detail=what))
        if new:
            guest.chmod(file, 0o600)
            guest.chown(file, account.uid, account.gid)
            set_label(guest, file, label)
        return done + _tighten(guest, file, account, 0o600)

    def _missing(self, content: bytes) -> list[bytes]:
        """The keys that no line has, each once."""
        lines = [line.strip() for line in content.splitlines()]
        there = {blob_of(line) for line in lines if not line.startswith(b"#")}
        missing = {blob_of(key): key for key in self.keys if blob_of(key) not in there}
        return list(missing.values())


def find_account(tree: GuestTree, user: str) -> Account:
    """The user's numbers and home.

    Raises GuestOperationError for a user without a home, and if sshd looks for keys elsewhere.
    """
    find_system(tree, OPTION)
    require_usual_place(tree, OPTION)
    for line in (read_text(tree, b"/etc/passwd") or b"").split(b"\n"):
        fields = line.split(b":")
        if fields[0] == os.fsencode(user) and len(fields) >= 7:
            return _account(tree, user, fields)
    raise GuestOperationError(f"{OPTION}: the guest has no user {user}")


def _account(tree: GuestTree, user: str, fields: list[bytes]) -> Account:
    uid, gid, home = fields[2], fields[3], fields[5]
    if not all(number.isdigit() and len(number) <= 10 for number in (uid, gid)):
        raise GuestOperationError(f"{OPTION}: the guest's passwd is damaged in the line of {user}")
    if not home.startswith(b"/") or not tree.is_dir(home):
        raise GuestOperationError(
            f"{OPTION}: {user} has no home in the guest ({show(home) or 'none'})",
            hint="make it first (mkdir, chown)",
        )
    return Account(uid=int(uid), gid=int(gid), home=tree.resolve(home))


def _places(tree: GuestTree, account: Account) -> tuple[bytes, bytes]:
    """~/.ssh and authorized_keys, resolved.  Raises GuestOperationError if a link leads out."""
    folder = _inside(tree, account, account.home.rstrip(b"/") + b"/.ssh")
    found = _stat_or_none(tree, folder)
    if found is None:
        return folder, folder + b"/authorized_keys"
    if not _stat.S_ISDIR(found.mode):
        raise GuestOperationError(f"{OPTION}: {show(folder)} is not a directory in the guest")
    file = _inside(tree, account, folder + b"/authorized_keys")
    found = _stat_or_none(tree, file)
    if found is not None and not _stat.S_ISREG(found.mode):
        raise GuestOperationError(f"{OPTION}: {show(file)} is not a regular file in the guest")
    if found is not None and found.nlink > 1:
        raise GuestOperationError(
            f"{OPTION}: {show(file)} is also another file of the guest (a hard link)",
            hint="look at what the user did there",
        )
    return folder, file


def _inside(tree: GuestTree, account: Account, path: bytes) -> bytes:
    resolved = tree.resolve(path)
    home = account.home.rstrip(b"/")
    # Everything is inside a home that is /: there only a path without links will do.
    outside = resolved != path if not home else not resolved.startswith(home + b"/")
    if outside:
        raise GuestOperationError(
            f"{OPTION}: {show(path)} leads out of the home, to {show(resolved)}",
            hint="remove that link first",
        )
    return resolved


def _stat_or_none(tree: GuestTree, resolved: bytes) -> Stat | None:
    return tree.lstat(resolved) if tree.exists(resolved) else None


def _read(tree: GuestTree, path: bytes) -> bytes:
    try:
        return tree.read(path, limit=MAX_KEY_FILE)
    except GuestFileTooLargeError as error:
        raise GuestFileTooLargeError(
            f"{OPTION}: {show(path)} is too large for a file of keys"
        ) from error


def _is_loose(found: Stat, account: Account) -> bool:
    """What sshd would refuse, or, reading as the user, could not read."""
    unreadable = found.uid != account.uid and not found.mode & 0o004
    return found.uid not in (account.uid, 0) or bool(found.mode & 0o022) or unreadable


def _tighten(guest: GuestFiles, path: bytes, account: Account, mode: int) -> list[Done]:
    """What sshd would not take becomes the user's own, and nobody else's."""
    if not _is_loose(guest.lstat(path), account):
        return []
    guest.chown(path, account.uid, account.gid)
    guest.chmod(path, mode)
    detail = f"owner {account.uid}:{account.gid}, mode {mode:04o}"
    return [Done(verb="changed", path=path, detail=detail)]
