"""Whether the guest's sshd looks for keys where they are put (sshd_config(5))."""

from __future__ import annotations

from collections.abc import Iterator

from imgtools.errors import GuestOperationError
from imgtools.guest.customize.system import read_text
from imgtools.guest.globbing import glob
from imgtools.guest.tree import GuestTree

CONFIG = b"/etc/ssh/sshd_config"
_KEYWORD = b"authorizedkeysfile"
_USUAL = frozenset((b".ssh/authorized_keys", b"%h/.ssh/authorized_keys"))
MAX_READ = 256
"""Files, and patterns that name them."""


def require_usual_place(tree: GuestTree, option: str) -> None:
    """Raise GuestOperationError if sshd reads no ~/.ssh/authorized_keys."""
    found = next(_values(tree, CONFIG, set()), None)
    if found is None or _USUAL & set(found):
        return
    places = b" ".join(found).decode(errors="replace")
    raise GuestOperationError(
        f"{option}: the guest's sshd does not read ~/.ssh/authorized_keys but: {places[:200]}",
        hint="--upload the key there, or change AuthorizedKeysFile",
    )


def _values(tree: GuestTree, path: bytes, read: set[bytes]) -> Iterator[list[bytes]]:
    """The words of every setting that counts for all users; the first one wins.

    Hence a file that was read says nothing new, however files include one another.
    """
    if not _is_new(path, read):
        return
    for line in (read_text(tree, path) or b"").splitlines():
        words = line.replace(b"=", b" ", 1).replace(b'"', b" ").split()
        if not words:
            continue
        keyword = words[0].lower()
        if keyword == b"match":
            return
        if keyword == _KEYWORD and len(words) > 1:
            yield words[1:]
        elif keyword == b"include":
            for pattern in words[1:]:
                full = pattern if pattern.startswith(b"/") else b"/etc/ssh/" + pattern
                for included in glob(tree, full) if _is_new(b"include " + full, read) else ():
                    yield from _values(tree, included, read)


def _is_new(path: bytes, read: set[bytes]) -> bool:
    """Whether a file or pattern is one that was not read yet; of too many, none is."""
    if path in read or len(read) >= MAX_READ:
        return False
    read.add(path)
    return True
