"""Which password hashes a guest can check.

By what the guest holds where that is certain: libxcrypt has the prefix of every method it knows in
its table (so ``$y$`` in libcrypt.so.1 means yescrypt); what PAM and login.defs make new passwords
with decides between methods that both work.  Else by the release, after the table of virt-customize
(libguestfs-common, mlcustomize/password.ml).  SHA-512 came with glibc 2.7 (2007).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgtools.errors import GuestOperationError
from imgtools.guest.customize.hashing import PREFIXES, Method
from imgtools.guest.customize.system import System, read_text
from imgtools.guest.tree import GuestTree

MAX_LIBRARY = 16 << 20
_FOLDERS = (b"/usr/lib64", b"/lib64", b"/usr/lib", b"/lib")
_NAMES = (b"libcrypt.so.1", b"libcrypt.so.2")
_PAM = (b"common-password", b"system-auth", b"password-auth", b"passwd")
_PAM_LINE = re.compile(rb"^\s*-?password\s.*\bpam_unix\.so\b(.*)$", re.MULTILINE)
_LOGIN_DEFS = re.compile(rb"^\s*ENCRYPT_METHOD\s+(\w+)", re.MULTILINE)
_WORDS = (b"yescrypt", b"sha512", b"sha256", b"blowfish", b"bcrypt", b"md5")


def choose_method(tree: GuestTree, system: System, asked: Method | None, option: str) -> Method:
    """The method for a new password: the one asked for, or the best that the guest can check.

    Raises GuestOperationError for one that would lock the user out.
    """
    library = guest_libcrypt(tree)
    if asked is not None:
        cannot = asked == "yescrypt" and not _knows_yescrypt(library, system, guess=True)
        if (
            cannot
            or (asked == "sha256" and _is_old(system))
            or (asked == "sha512" and _is_old(system))
        ):
            raise GuestOperationError(
                f"{option}: {system.name} cannot check {asked} hashes: nobody could log in",
                hint="leave --password-crypto out",
            )
        return asked
    if _is_old(system):
        return "md5"
    if not _knows_yescrypt(library, system, guess=False):
        return "sha512"
    return "sha512" if configured(tree) == "sha512" else "yescrypt"


def configured(tree: GuestTree) -> str:
    """What the guest itself hashes new passwords with, by PAM, else login.defs; or empty."""
    for name in _PAM:
        for options in _PAM_LINE.findall(read_text(tree, b"/etc/pam.d/" + name) or b""):
            for word in options.split():
                if word in _WORDS:
                    return str(word, "ascii")
    found = _LOGIN_DEFS.search(read_text(tree, b"/etc/login.defs") or b"")
    return str(found[1], "ascii").lower() if found else ""


def guest_libcrypt(tree: GuestTree) -> bytes | None:
    """The content of the guest's libcrypt; None where there is none, as with musl."""
    for path in _candidates(tree):
        if tree.is_file(path):
            try:
                return tree.read(path, limit=MAX_LIBRARY)
            except GuestOperationError:
                continue
    return None


def _candidates(tree: GuestTree) -> Iterator[bytes]:
    for folder in _FOLDERS:
        places = [folder]
        places += [folder + b"/" + name for name in tree.listdir(folder) if b"-linux-" in name]
        for place in places:
            for name in _NAMES:
                yield place + b"/" + name


def _knows_yescrypt(library: bytes | None, system: System, *, guess: bool) -> bool:
    """By the library; without one by the release, or ``guess`` where that says nothing."""
    if library is not None:
        return PREFIXES["yescrypt"] in library
    if system.family in ("alpine", "void"):  # musl
        return False
    known = system.at_least(fedora=30, rhel=9, debian=11, ubuntu=20, suse=15)
    if known is not None:
        return known
    return guess or system.distro in ("archlinux", "kalilinux")


def _is_old(system: System) -> bool:
    """Releases whose crypt(3) knows MD5 only; a version of 0 is one that nobody knows."""
    new = system.at_least(fedora=9, rhel=6, debian=5, ubuntu=10, suse=11)
    return system.major > 0 and new is False
