"""The names that a guest gives to its users and groups."""

from __future__ import annotations

from imgtools.errors import GuestOperationError
from imgtools.guest.tree import GuestTree

USERS, GROUPS = b"/etc/passwd", b"/etc/group"
MAX_NAMES = 4 << 20


def names_by_id(tree: GuestTree, path: bytes) -> dict[int, bytes]:
    """Names by id from the guest's passwd or group; none if there is no such file."""
    try:
        lines = tree.read(path, limit=MAX_NAMES).split(b"\n")
    except GuestOperationError:
        return {}
    found: dict[int, bytes] = {}
    for line in lines:
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) < 11 and fields[0]:
            found.setdefault(int(fields[2]), fields[0])
    return found
