"""What kind of filesystem this is: a Linux root, another system's root, or neither.

The tests and their order are libguestfs's (daemon/inspect_fs.ml), since what they find must be the
same systems; a Linux root is also one that has os-release but neither fstab nor hosts.
"""

from __future__ import annotations

from imgtools.errors import GuestOperationError
from imgtools.guest.linux.findings import link_target
from imgtools.guest.tree import GuestTree
from imgtools.model.files import FileKind

LINUX = "linux"
COREOS = "coreos"

_SYSTEMROOTS = frozenset((b"windows", b"winnt", b"win32", b"win", b"reactos"))


def kind_of_root(tree: GuestTree) -> str:
    """``linux``, ``coreos``, another system's name, or empty if this is no root filesystem.

    ``tree`` is the one filesystem mounted on /.
    """
    if any(_is(tree, p, "r") for p in (b"/grub/menu.lst", b"/grub/grub.conf", b"/grub2/grub.cfg")):
        return ""  # a /boot
    if _is(tree, b"/etc", "d"):
        return _kind_with_etc(tree)
    if all(_is(tree, b"/hurd/" + name, "r") for name in (b"console", b"hello", b"null")):
        return "hurd"
    return _kind_without_etc(tree)


def _kind_with_etc(tree: GuestTree) -> str:
    bin_folder = _is(tree, b"/bin", "d")
    fstab = _is(tree, b"/etc/fstab", "r")
    for name, marks in _OTHER_MARKS.items():
        if bin_folder and fstab and all(_is(tree, mark, "r") for mark in marks):
            return name
    if all(_is(tree, b"/hurd/" + name, "r") for name in (b"console", b"hello", b"null")):
        return "hurd"
    if (bin_folder or _links_to_usr_bin(tree)) and (fstab or _has_release(tree)):
        return LINUX
    folders = all(_is(tree, path, "d") for path in (b"/root", b"/home", b"/usr"))
    if folders and _is(tree, b"/etc/coreos/update.conf", "r"):
        return COREOS
    return ""


_OTHER_MARKS = {
    "freebsd": (b"/etc/freebsd-update.conf",),
    "netbsd": (b"/netbsd", b"/etc/release"),
    "openbsd": (b"/bsd", b"/etc/motd"),
    "minix": (b"/service/vm", b"/etc/version"),
}


def _has_release(tree: GuestTree) -> bool:
    if _is(tree, b"/etc/hosts", "r"):
        return True
    # A link to ../usr/lib/os-release counts also where /usr is another filesystem.
    return any(_is(tree, b"/etc/os-release", kind) for kind in ("r", "l"))


def _links_to_usr_bin(tree: GuestTree) -> bool:
    return link_target(tree, b"/bin").lstrip(b"/") == b"usr/bin"


def _kind_without_etc(tree: GuestTree) -> str:
    for name in tree.listdir(b"/"):
        lower = name.lower()
        if lower in _SYSTEMROOTS and _has(tree, b"/" + name, b"system32", b"config"):
            return "windows"
        if lower == b"fdos" and _has(tree, b"/" + name, b"freedos.bss"):
            return "dos"
        if lower == b"dos" and _has(tree, b"/" + name, b"command.com"):
            return "dos"
    return ""


def _has(tree: GuestTree, folder: bytes, *names: bytes) -> bool:
    """True if ``names`` lead down from ``folder``, in any case of letters."""
    for wanted in names:
        match = next((n for n in tree.listdir(folder) if n.lower() == wanted), None)
        if match is None:
            return False
        folder = folder + b"/" + match
    return True


def _is(tree: GuestTree, path: bytes, kind: FileKind) -> bool:
    """True if ``path`` itself, no link followed at the end, is of that kind."""
    try:
        return tree.lstat(path).kind == kind
    except GuestOperationError:
        return False
