"""The accounts somebody could log in to: passwd(5), shadow(5), authorized_keys.

No hash leaves this module: of a password only whether it is set, locked or empty.
"""

from __future__ import annotations

from imgtools.errors import GuestFileNotFoundError, GuestNotADirectoryError
from imgtools.guest.inspection import User
from imgtools.guest.linux.findings import Findings, decode
from imgtools.guest.tree import GuestTree

MAX_USERS = 5000
MAX_KEY_FILE = 1 << 20
_NO_LOGIN = frozenset(
    (b"nologin", b"false", b"true", b"sync", b"shutdown", b"halt", b"git-shell", b"null")
)


def find_users(tree: GuestTree, findings: Findings) -> tuple[User, ...]:
    """The accounts with a login shell, in the order of /etc/passwd."""
    shadow = _shadow(findings.lines(tree, "users", b"/etc/shadow") or [])
    users = []
    for line in findings.lines(tree, "users", b"/etc/passwd") or []:
        fields = line.split(b":")
        if not line.strip() or line.startswith((b"#", b"+", b"-")):
            continue
        if len(fields) != 7 or not _is_id(fields[2]) or not _is_id(fields[3]):
            findings.warn("users", f"/etc/passwd: a line makes no sense: {decode(line[:60])!r}")
        elif _can_log_in(fields[6].strip()):
            users.append(_user(tree, findings, fields, shadow))
        if len(users) >= MAX_USERS:
            findings.warn("users", f"more than {MAX_USERS} accounts; the rest is not listed")
            break
    return tuple(users)


def _can_log_in(shell: bytes) -> bool:
    return shell.rpartition(b"/")[2] not in _NO_LOGIN  # an empty shell means /bin/sh


def _is_id(field: bytes) -> bool:
    return field.isdigit() and len(field) <= 10


def _user(
    tree: GuestTree, findings: Findings, fields: list[bytes], shadow: dict[bytes, bytes]
) -> User:
    name, own, uid, gid, _gecos, home, shell = fields
    secret = shadow.get(name) if own == b"x" else own
    return User(
        name=decode(name),
        uid=int(uid),
        gid=int(gid),
        home=decode(home),
        shell=decode(shell.strip()) or "/bin/sh",
        password=password_state(secret),
        ssh_keys=_count_keys(tree, findings, home),
    )


def _shadow(lines: list[bytes]) -> dict[bytes, bytes]:
    secrets = {}
    for line in lines:
        name, colon, rest = line.partition(b":")
        if colon:
            secrets[name] = rest.split(b":", 1)[0]
    return secrets


def password_state(secret: bytes | None) -> str:
    """What a password field says: ``set``, ``locked``, ``empty`` or ``unknown``."""
    if secret is None:
        return "unknown"
    if not secret:
        return "empty"
    # "!" before a hash locks it; "*", "x" and other words match no password at all.
    if secret.startswith((b"!", b"*")) or len(secret) < 13:
        return "locked"
    return "set"


def _count_keys(tree: GuestTree, findings: Findings, home: bytes) -> int:
    if not home.startswith(b"/"):
        return 0
    count = 0
    for name in b"authorized_keys", b"authorized_keys2":
        path = home.rstrip(b"/") + b"/.ssh/" + name
        try:
            data = tree.read(path, limit=MAX_KEY_FILE)
        except (GuestFileNotFoundError, GuestNotADirectoryError):
            continue
        except findings.caught as error:
            findings.warn("users", str(error))
            continue
        lines = [line.strip() for line in data.split(b"\n")]
        count += sum(1 for line in lines if line and not line.startswith(b"#"))
    return count
