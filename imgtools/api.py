"""What an operation of `imgtools sysprep` is made of: the one module that a plugin imports.

An operation looks at a guest that is mounted read-only and says what it would do, as `Action`
records; imgtools does it, in one transaction with all the other operations, or only lists it.  The
names here do not change within a major version.  docs/plugins.md teaches it.
"""

from __future__ import annotations

import os
import re
import stat as _stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imgtools.errors import (
    DirectError,
    GuestFileNotFoundError,
    GuestFileTooLargeError,
    GuestOperationError,
    UsageError,
)
from imgtools.guest.globbing import glob
from imgtools.guest.linux.boot import ESP_MBR_ID, ESP_TYPE
from imgtools.guest.linux.distros import family
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.grub import core_text
from imgtools.guest.linux.initramfs import DamagedInitramfsError, Text, matches
from imgtools.guest.linux.release import Release, find_release
from imgtools.guest.steps import (
    ClearSwap,
    ClearSwapFile,
    Content,
    Link,
    Mkdir,
    Move,
    Nothing,
    Remove,
    RenewLvm,
    Rewrite,
    RewriteInitramfs,
    SetUuid,
    Step,
    Touch,
    Truncate,
    Verb,
    Write,
)
from imgtools.guest.steps.host import RunOnHost, check_fuse, find_folder, find_program
from imgtools.guest.tree import GuestTree, show
from imgtools.model import Stat, Storage
from imgtools.swap import is_clear

__all__ = [
    "Action",
    "Guest",
    "GuestOperationError",
    "Home",
    "Operation",
    "Option",
    "Release",
    "Text",
    "UsageError",
    "Values",
    "clear_swap",
    "clear_swap_file",
    "core_text",
    "customize",
    "customize_options",
    "empty",
    "empty_paths",
    "find_in_initramfs",
    "link",
    "move",
    "note",
    "remove",
    "remove_files",
    "remove_lines",
    "remove_paths",
    "renew_lvm",
    "rewrite",
    "rewrite_initramfs",
    "run_command",
    "run_on_host",
    "set_uuid",
    "touch",
    "write",
]

MAX_TEXT = 16 << 20
"""Bytes of the largest file that an operation reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do: ``step`` does it to ``path``; ``freed`` are the bytes that it gives back.

    What an operation before has removed is not done again, unless ``always`` says that the step
    makes something there, or runs a program.  An ``unmounted`` one is done to a device, before all
    that is done to files.  ``detail`` says what is done for people.
    """

    verb: Verb
    path: bytes
    step: Step
    freed: int = 0
    always: bool = False
    unmounted: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option that an operation adds to the command, as ``--name``.

    ``metavar`` is None for a flag, whose value is a bool; the value of a ``multiple`` option is a
    tuple of strings, of any other a string or None.
    """

    name: str
    help: str
    metavar: str | None = None
    multiple: bool = False


class Values(dict[str, Any]):
    """The values of the options by name; ``given`` are those of the command line in its order,
    as (name, value), the value of a flag being empty."""

    given: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """An account of /etc/passwd and its home directory."""

    name: str
    uid: int
    path: bytes


class Guest:
    """A guest as an operation sees it: read-only, links resolved inside the guest.

    ``warnings`` are what `warn` was told.
    """

    def __init__(self, tree: GuestTree) -> None:
        self.tree = tree
        self.warnings: list[str] = []
        self.release: Release = find_release(tree, Findings("guest"))

    @property
    def family(self) -> str:
        """``debian``, ``fedora``, ``rhel``, ``suse``, ``arch`` …, or empty."""
        return family(self.release.final_distro, self.release.id_like)

    @property
    def storage(self) -> Storage:
        """What is on all disks: ``filesystems``, ``luks``, ``pvs``, ``vgs``, ``partitions`` …"""
        return self.tree.storage()

    def is_mounted(self, device: str) -> bool:
        """True if the guest mounts the filesystem on ``device``, or a subvolume of it."""
        below = f"btrfsvol:{device}/"
        return any(
            mount.device == device or mount.device.startswith(below) for mount in self.tree.mounts
        )

    def unmounted_esps(self) -> list[str]:
        """EFI system partitions (UEFI 2.10, 5.3.3) of which the guest's fstab says nothing."""
        found = {one.device for one in self.storage.filesystems}
        return [
            one.name
            for one in self.storage.partitions
            if (one.gpt_type == ESP_TYPE or one.mbr_id == ESP_MBR_ID)
            and one.name in found
            and not self.is_mounted(one.name)
        ]

    def warn(self, text: str) -> None:
        """Tell the user, without ending the run."""
        if text not in self.warnings:
            self.warnings.append(text)

    def glob(self, *patterns: str) -> Iterator[bytes]:
        """The paths that shell patterns match (``*``, ``?``, ``[…]``; ``*`` also hidden names).

        Links in the folders on the way are followed; each path comes once, in the order of its
        pattern.  Raises GuestOperationError for more than 200 000 matches.
        """
        yield from glob(self.tree, *map(os.fsencode, patterns))

    def homes(self) -> list[Home]:
        """The home directories in /etc/passwd that are there, each path once."""
        homes: dict[bytes, Home] = {}
        for line in (self.read("/etc/passwd") or b"").splitlines():
            fields = line.split(b":")
            if len(fields) != 7 or not fields[2].isdigit() or fields[5] in (b"", b"/"):
                continue
            path = b"/" + fields[5].strip(b"/")
            if path not in homes and self.tree.is_dir(path):
                homes[path] = Home(name=os.fsdecode(fields[0]), uid=int(fields[2]), path=path)
        return list(homes.values())

    def in_homes(self, *patterns: str) -> Iterator[bytes]:
        """What patterns match below every home directory; a home's own name is no pattern.

        Homes are those of /etc/passwd, and the folders in /home, which may be those of accounts
        that a directory service knows.
        """
        homes = dict.fromkeys(home.path for home in self.homes())
        homes |= dict.fromkeys(path for path in self.glob("/home/*") if self.tree.is_dir(path))
        for home in homes:
            yield from glob(self.tree, *map(os.fsencode, patterns), below=home)

    def files_below(
        self, *patterns: str, enter: Callable[[bytes], bool] | None = None
    ) -> Iterator[tuple[bytes, Stat]]:
        """All but the folders in the folders that patterns match, at any depth, with its lstat.

        ``enter`` says which folders below them are gone into, else all.
        """
        for top in self.glob(*patterns):
            if self.tree.is_dir(top):
                for path, _, found in self.tree.walk(top, enter=enter):
                    if not _stat.S_ISDIR(found.mode):
                        yield path, found

    def read(self, path: str | bytes) -> bytes | None:
        """The content of a file; None where there is none.  Raises for one above `MAX_TEXT`."""
        try:
            return self.tree.read(os.fsencode(path), limit=MAX_TEXT)
        except GuestFileNotFoundError:
            return None
        except GuestFileTooLargeError as error:
            raise GuestOperationError(f"{error.message} (too large for an operation)") from error

    def size(self, path: bytes) -> int:
        """Bytes on the disk of a file or of everything below a directory."""
        found = self.tree.lstat(path)
        total = _size(found)
        if _stat.S_ISDIR(found.mode):
            total += sum(_size(one) for _, _, one in self.tree.walk(path))
        return total


def _size(found: Stat) -> int:
    return found.blocks * 512 if found.nlink == 1 or _stat.S_ISDIR(found.mode) else 0


Plan = Callable[[Guest, Mapping[str, Any]], Iterable[Action]]
"""What an operation would do to a guest, given the values of its options by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of sysprep.

    ``name`` is in kebab-case; ``heading`` is one line for lists; ``description`` says what is
    removed and why.  Operations run in the order of (``order``, ``name``); ``default`` ones run
    unless the user chooses others.  ``families`` limits it to distributions, none means all.
    """

    name: str
    heading: str
    plan: Plan
    description: str = ""
    order: int = 0
    default: bool = True
    families: tuple[str, ...] = ()
    options: tuple[Option, ...] = field(default=())

    def applies(self, guest: Guest) -> bool:
        """True if the guest is of a family that the operation is for."""
        return not self.families or guest.family in self.families


# --- customize -----------------------------------------------------------------------------------


def run_command(guest: Guest, command: str) -> Iterator[Action]:
    """Run a shell command of the guest as its root, with all that comes before it done.

    Raises GuestOperationError where the guest's programs cannot run here.
    """
    from imgtools.guest.customize.command_steps import Command

    step = Command(command=command)
    step.check(guest.tree)
    yield Action(verb="ran", path=os.fsencode(command), step=step, always=True)


def customize_options() -> tuple[Option, ...]:
    """The options of `imgtools customize`, which the operation of that name has, too."""
    from imgtools.guest.customize import commands_file
    from imgtools.guest.customize.table import OPTIONS

    return (
        *(
            Option(
                name=row.name, metavar=row.metavar, help=row.help, multiple=row.metavar is not None
            )
            for row in OPTIONS
        ),
        Option(
            name=commands_file.NAME,
            metavar="FILE",
            multiple=True,
            help="Read these options from a file, one a line without dashes.",
        ),
    )


def customize(guest: Guest, values: Mapping[str, Any]) -> Iterator[Action]:
    """Do what the options of customize say, in the order of the command line.

    Raises UsageError for a bad value, and GuestOperationError for what this guest cannot do.
    """
    from imgtools.guest.customize.commands_file import given
    from imgtools.guest.customize.plan import plan

    names = {option.name for option in customize_options()}
    known = values.given if isinstance(values, Values) else ()
    found = plan(given([(name, value) for name, value in known if name in names]))
    for one in found.steps:
        one.check(guest.tree)
    for one in found.steps:
        yield Action(verb=one.verb, path=one.shown, step=one, always=True)


# --- actions -------------------------------------------------------------------------------------


def remove(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Remove every file and folder that the patterns match, with all that is below."""
    yield from remove_paths(guest, guest.glob(*patterns))


def remove_files(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Remove what the patterns match, but no folders."""
    for path in guest.glob(*patterns):
        if not _stat.S_ISDIR(guest.tree.lstat(path).mode):
            yield from remove_paths(guest, [path])


def remove_paths(guest: Guest, paths: Iterable[bytes]) -> Iterator[Action]:
    """Remove these files and folders, with all that is below.

    Of a folder on which or below which a filesystem is mounted, what can be removed is.
    """
    for path in paths:
        if _holds_mount(guest.tree, path):
            below = [path.rstrip(b"/") + b"/" + name for name in guest.tree.listdir(path)]
            yield from remove_paths(guest, below)
            continue
        step = Remove(path=path, recursive=True, force=True)
        yield Action(verb="removed", path=path, step=step, freed=guest.size(path))


def empty(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Cut regular files to no bytes, as programs need that do not make a file themselves."""
    yield from empty_paths(guest, guest.glob(*patterns))


def empty_paths(guest: Guest, paths: Iterable[bytes]) -> Iterator[Action]:
    """Cut these to no bytes where they are regular files."""
    for path in paths:
        found = guest.tree.lstat(path)
        if _stat.S_ISREG(found.mode) and found.size:
            step = Truncate(path=path, size=0)
            yield Action(verb="changed", path=path, step=step, freed=_size(found))


def _holds_mount(tree: GuestTree, path: bytes) -> bool:
    points = [mount.mountpoint for mount in tree.mounts if mount.mountpoint != b"/"]
    if not points:
        return False
    resolved = tree.resolve(path, follow_last=False)
    return any(point == resolved or point.startswith(resolved + b"/") for point in points)


def write(guest: Guest, path: str | bytes, content: bytes, mode: str = "0644") -> Iterator[Action]:
    """Write a file if its content is another; ``mode`` is for a new one, as are its folders."""
    target = os.fsencode(path)
    if guest.read(target) == content:
        return
    folder = target.rpartition(b"/")[0]
    if folder and not guest.tree.is_dir(folder):
        yield Action(verb="made", path=folder, step=Mkdir(path=folder, parents=True))
    text = Content(data=content)
    step = Write(path=target, content=text, mode=None if guest.tree.exists(target) else mode)
    yield Action(verb="written", path=target, step=step)


def rewrite(
    guest: Guest, path: str | bytes, transform: Callable[[bytes], bytes]
) -> Iterator[Action]:
    """Pass a file through ``transform``; nothing where there is none, or nothing changes."""
    target = os.fsencode(path)
    content = guest.read(target)
    if content is not None and transform(content) != content:
        step = Rewrite(path=target, transform=transform, limit=MAX_TEXT)
        yield Action(verb="edited", path=target, step=step)


def remove_lines(guest: Guest, line: re.Pattern[bytes], *patterns: str) -> Iterator[Action]:
    """Remove what ``line`` matches from every regular file that the patterns match."""
    for path in guest.glob(*patterns):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: line.sub(b"", text))


def touch(guest: Guest, path: str | bytes) -> Iterator[Action]:
    """Make an empty file where there is none."""
    target = os.fsencode(path)
    if not guest.tree.exists(target):
        yield Action(verb="made", path=target, step=Touch(path=target))


def link(guest: Guest, target: str, path: str | bytes) -> Iterator[Action]:
    """Make ``path`` a symbolic link to ``target``, in place of a file or another link."""
    where = os.fsencode(path)
    step = Link(path=where, target=os.fsencode(target), symbolic=True, force=True)
    folder = where.rpartition(b"/")[0]
    if folder and not guest.tree.is_dir(folder):
        yield Action(verb="made", path=folder, step=Mkdir(path=folder, parents=True))
    elif step.idle(guest.tree):
        return
    yield Action(verb="made", path=where, step=step)


def move(path: bytes, to: bytes) -> Iterator[Action]:
    """Give a file or folder another name; ``to`` is the whole new path."""
    yield Action(verb="moved", path=path, step=Move(path=path, to=to), detail=f"to {show(to)}")


def rewrite_initramfs(guest: Guest, path: bytes, text: Text) -> Iterator[Action]:
    """Replace text in an initramfs, if it names that.  One that no kernel could unpack is left.

    Raises GuestOperationError if it cannot be looked into.
    """
    step = RewriteInitramfs(path=path, text=text)
    try:
        idle = step.idle(guest.tree)
    except DamagedInitramfsError as error:
        guest.warn(f"{show(path)}: {error.message}; it is left as it is")
    except GuestOperationError as error:
        raise GuestOperationError(f"{show(path)}: {error.message}", hint=error.hint) from error
    else:
        if not idle:
            yield Action(verb="edited", path=path, step=step)


def find_in_initramfs(
    guest: Guest, path: bytes, pattern: re.Pattern[bytes], longest: int
) -> set[tuple[bytes, ...]]:
    """The groups of what ``pattern`` matches in the unpacked initramfs ``path``.

    ``longest`` bytes hold a match.  One that cannot be looked into is told as a warning.
    """
    try:
        with guest.tree.open(path) as stream:
            return matches(stream, pattern, longest)
    except DirectError:
        raise
    except GuestOperationError as error:
        guest.warn(f"{show(path)}: {error.message}; it was not looked into")
        return set()


def note(path: bytes, text: str) -> Iterator[Action]:
    """Tell the user about a file; nothing is changed, and it counts as no change."""
    yield Action(verb="noted", path=path, step=Nothing(), detail=text)


# --- devices, while nothing on them is mounted ---------------------------------------------------


def set_uuid(device: str, kind: str, old: str, new: str) -> Iterator[Action]:
    """Give the filesystem, swap or LUKS header on a device of ``guest.storage`` another UUID.

    ``kind`` is ext2, ext3, ext4, xfs, btrfs, swap, vfat or crypto_LUKS.
    """
    yield Action(
        verb="changed",
        path=device.encode("utf-8", errors="surrogateescape"),
        step=SetUuid(device=device, kind=kind, old=old, new=new),
        unmounted=True,
        detail=f"{kind}: a random UUID instead of {old}",
    )


def clear_swap(guest: Guest, device: str) -> Iterator[Action]:
    """Write zeros over the content of a swap space of ``guest.storage``, if it has any."""
    if not guest.tree.swap_is_clear(device):
        detail = "swap: all but its header"
        yield Action(
            verb="changed",
            path=device.encode("utf-8", errors="surrogateescape"),
            step=ClearSwap(device=device, detail=detail),
            unmounted=True,
            detail=detail,
        )


def clear_swap_file(guest: Guest, path: bytes) -> Iterator[Action]:
    """Write zeros over the content of a swap file, if it has any."""
    with guest.tree.open(path) as stream:
        clear = is_clear(stream)
    if not clear:
        yield Action(verb="changed", path=path, step=ClearSwapFile(path=path))


def renew_lvm(detail: str, tell: Callable[[Mapping[str, str]], None]) -> Iterator[Action]:
    """Give every PV and VG a random id; ``tell`` gets old to new, without dashes, once done.

    That is before anything is done to files.
    """
    yield Action(
        verb="changed", path=b"LVM", step=RenewLvm(tell=tell), unmounted=True, detail=detail
    )


# --- this host -----------------------------------------------------------------------------------


def run_on_host(programs: Sequence[str], folder: str | None = None) -> Iterator[Action]:
    """Run programs of this host one after the other where the guest's files are mounted.

    ``folder`` is an empty one of this host, else a temporary one is made.  Raises UsageError for a
    program or folder that cannot be used, MissingToolError without FUSE.
    """
    place = None if folder is None else find_folder(folder)
    found = [find_program(name) for name in programs]
    if found:
        check_fuse()
    for program in found:
        step = RunOnHost(program=program, folder=place)
        yield Action(verb="ran", path=os.fsencode(program), step=step, always=True)
