"""``--hostname``: the name of the machine, where each distribution keeps it.

After virt-customize (libguestfs-common, mlcustomize/hostname.ml), and hostname(5) for every guest
with systemd.  Beyond it, /etc/hosts follows in every distribution, since names that do not resolve
make sudo and mail wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize.placing import put_file
from imgtools.guest.customize.system import System, find_system, read_text
from imgtools.guest.linux.findings import Findings, encode
from imgtools.guest.linux.identity import find_hostname
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

OPTION = "--hostname"
MAX_NAME = 64
"""Bytes: the kernel's HOST_NAME_MAX."""
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\Z")
_PLAIN = ("debian", "arch", "alpine", "void")  # families that read /etc/hostname without systemd


def parse(value: str) -> SetHostname:
    """A host name, with its domain or without.  Raises UsageError."""
    if len(value) > MAX_NAME or not all(_LABEL.match(label) for label in value.split(".")):
        raise UsageError(
            f"{OPTION}: {value[:100]!r} is no host name",
            hint=f"letters, digits and hyphens, labels with dots between, {MAX_NAME} at most",
        )
    return SetHostname(name=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHostname:
    """Give the guest a name."""

    name: str

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError for a guest that keeps its name elsewhere."""
        self._files(tree)

    def idle(self, tree: GuestTree) -> bool:
        """True if every file says so already."""
        return all(read_text(tree, path) == content for path, content in self._files(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Write the files that say something else."""
        return [one for path, text in self._files(guest) for one in put_file(guest, path, text)]

    def _files(self, tree: GuestTree) -> list[tuple[bytes, bytes]]:
        """Every file that holds the name, and what it is to hold."""
        system = find_system(tree, OPTION)
        files = _name_files(tree, system, self.name.encode())
        old = encode(find_hostname(tree, Findings("guest")))
        hosts = read_text(tree, b"/etc/hosts")
        if hosts is not None:
            files.append((b"/etc/hosts", renamed_hosts(hosts, old, self.name.encode())))
        return files


def _name_files(tree: GuestTree, system: System, name: bytes) -> list[tuple[bytes, bytes]]:
    def assigned(path: bytes, key: bytes, value: bytes = name) -> tuple[bytes, bytes]:
        return path, assign(read_text(tree, path) or b"", key, value)

    plain = (b"/etc/hostname", name + b"\n")
    systemd = system.init == "systemd"
    recent = system.at_least(fedora=18, rhel=7) if system.major else None
    if recent is False or (recent is None and system.is_red_hat and not systemd):
        return [assigned(b"/etc/sysconfig/network", b"HOSTNAME")]
    if system.family == "suse":
        # /etc/HOSTNAME until SUSE took systemd; since then a link to the other, if anything.
        old_style = (b"/etc/HOSTNAME", name + b"\n")
        if not systemd:
            return [old_style]
        return [plain, old_style] if tree.exists(b"/etc/HOSTNAME") else [plain]
    if system.family == "gentoo" and not systemd:
        return [assigned(b"/etc/conf.d/hostname", b"hostname", b'"' + name + b'"')]
    if not recent and not systemd and system.family not in _PLAIN:
        raise GuestOperationError(
            f"{OPTION}: where {system.name} keeps its name is not known",
            hint="--write or --edit the file yourself",
        )
    files = [plain]
    pretty = read_text(tree, b"/etc/machine-info")
    if pretty is not None and re.search(rb"^PRETTY_HOSTNAME=", pretty, re.MULTILINE):
        files.append(assigned(b"/etc/machine-info", b"PRETTY_HOSTNAME"))
    return files


def assign(text: bytes, key: bytes, value: bytes) -> bytes:
    """A file of shell assignments with the last ``KEY=`` changed, or added at the end."""
    lines = text.split(b"\n")
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith(key + b"="):
            lines[number] = key + b"=" + value
            return b"\n".join(lines)
    glue = b"" if not text or text.endswith(b"\n") else b"\n"
    return text + glue + key + b"=" + value + b"\n"


def renamed_hosts(text: bytes, old: bytes, new: bytes) -> bytes:
    """hosts(5) with the old names of the machine replaced, spacing and comments as they were.

    The old name with its domain becomes the new one with its own, the short name the short one; a
    name that had no domain becomes both.  ``localhost`` is nobody's own.
    """
    names = _replacements(old, new)
    if not names:
        return text
    return re.sub(rb"(?m)^[^\n]+", lambda line: _renamed_line(line[0], names.get), text)


def _replacements(old: bytes, new: bytes) -> dict[bytes, bytes]:
    short, new_short = old.partition(b".")[0], new.partition(b".")[0]
    both = new if new == new_short else new + b" " + new_short
    # What Debian's installer writes for a machine without a name.
    names = {b"unassigned-hostname": new_short, b"unassigned-hostname.unassigned-domain": new}
    if old and short != b"localhost":
        names |= {old: new, short: new_short} if old != short else {old: both}
    return names


def _renamed_line(line: bytes, renamed: Callable[[bytes], bytes | None]) -> bytes:
    entry, mark, comment = line.partition(b"#")
    parts = re.split(rb"(\s+)", entry)  # words and, at odd places, the spaces before the next
    start = 3 if parts[0] == b"" else 1
    result, seen = parts[:start], set[bytes]()
    for space, word in zip(parts[start::2], parts[start + 1 :: 2], strict=False):
        wanted = renamed(word)
        fresh = [one for one in (wanted or word).split() if one not in seen]
        if wanted is not None and not fresh:
            continue
        seen.update(fresh)
        result += [space, b" ".join(fresh) if wanted is not None else word]
    return b"".join(result) + mark + comment
