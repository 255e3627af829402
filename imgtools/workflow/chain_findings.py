"""What is wrong in a forest of backing chains, and the command that mends each finding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.image.birth import birth_time
from imgtools.image.forest import Forest, Link
from imgtools.image.member import FORMAT_SUFFIXES, Identity, Member, holds_data
from imgtools.image.plausible import RAW_SUFFIXES
from imgtools.image.reference import protocol_of
from imgtools.model.disks import KNOWN_FORMATS
from imgtools.workflow.shellwords import command_line

MAX_DEPTH = 20
"""Images below an image; more make every read of the guest slow."""
_SLACK = 1_000_000_000  # nanoseconds; file systems' clocks are coarse
_ALIASES = {"vhd": "vpc", "host_device": "raw", "file": "raw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with ``image``: a dotted code, one line, and what to do.

    ``command`` is a line for a shell that mends it, None where only the user can tell.  ``mend``
    does what needs no choice and is certain (`--fix`).
    """

    code: str
    image: Path
    message: str
    hint: str | None = None
    command: str | None = None
    mend: Callable[[], None] | None = None


def findings_of(forest: Forest, hidden: set[Path]) -> Iterator[Finding]:
    """The findings of every image, by path; those of overlays of running changes (``hidden``) not.

    What each finding means, and when it is none: docs/images.md.
    """
    by_name: dict[str, list[Member]] = {}
    for identity, member in forest.members.items():
        if identity not in forest.outside:
            by_name.setdefault(member.path.name, []).append(member)
    for loop in forest.loops:
        yield _loop(forest, loop)
    lost: dict[Identity, list[Path]] = {}
    for identity, path in forest.lost_parts:
        lost.setdefault(identity, []).append(path)
    for identity in sorted(forest.members, key=forest.path):
        member = forest.members[identity]
        if member.path in hidden:
            continue
        yield from _own(member, is_part=identity in forest.parts)
        yield from (_lost_part(member, path) for path in lost.get(identity, ()))
        link = forest.links.get(identity)
        if link is not None:
            yield from _of_link(forest, member, link, by_name)
        if not forest.children.get(identity) and forest.depths.get(identity, 0) > MAX_DEPTH:
            yield _deep(member, forest.depths[identity])


# --- the image itself -----------------------------------------------------------------------------


def _own(member: Member, *, is_part: bool) -> Iterator[Finding]:
    path = member.path
    for problem in member.problems:
        message = problem.message
        if problem.fatal:
            info = command_line(["imgtools", "info", path])
            yield Finding(code="chain.damaged", image=path, message=message, command=info)
        elif problem.code.endswith(".dirty"):
            if not member.locks.writer:  # else it is simply open
                yield Finding(
                    code="chain.dirty",
                    image=path,
                    message="marked dirty: it was not closed cleanly",
                    command=command_line(["imgtools", "image", "check", "-r", "all", path]),
                )
        elif problem.code == "raw.poses":
            yield Finding(
                code="chain.poses",
                image=path,
                message=message,
                hint="the guest may have written that; name the format raw wherever it is used",
            )
        else:
            check = command_line(["imgtools", "image", "check", path])
            yield Finding(code="chain.damaged", image=path, message=message, command=check)
    named = path.suffix.lower() in FORMAT_SUFFIXES
    if member.format == "raw" and not member.problems and named and not is_part:
        yield Finding(
            code="chain.no-header",
            image=path,
            message=f"has no header of any image format, although it is named {path.suffix}",
            hint="it is raw, an extent without its descriptor, or its beginning was overwritten",
        )


def _lost_part(member: Member, path: Path) -> Finding:
    return Finding(
        code="chain.part-missing",
        image=member.path,
        message=f"its data file or extent {path} does not exist",
        hint="bring it back to that place: the guest's data is in it",
    )


def _loop(forest: Forest, loop: tuple[Identity, ...]) -> Finding:
    names = " -> ".join(str(forest.path(one)) for one in (*loop, loop[0]))
    return Finding(
        code="chain.loop",
        image=forest.path(loop[0]),
        message=f"its backing chain is a loop: {names}",
        hint="one of them names the wrong parent; find out which, then: imgtools image rebase -u",
    )


def _deep(member: Member, depth: int) -> Finding:
    flat = member.path.with_name(f"{member.path.stem}.flat.qcow2")
    return Finding(
        code="chain.deep",
        image=member.path,
        message=f"{depth} images lie below it, and each is opened and searched on every read",
        command=command_line(["imgtools", "image", "convert", "-O", "qcow2", member.path, flat]),
    )


# --- an image and its parent ----------------------------------------------------------------------


def _of_link(
    forest: Forest, member: Member, link: Link, by_name: dict[str, list[Member]]
) -> Iterator[Finding]:
    path = member.path
    if link.broken == "missing":
        yield _missing(member, link, by_name)
    elif link.broken in ("reference", "outside"):
        yield Finding(code="chain.untrusted", image=path, message=link.message, hint=link.hint)
    elif link.broken is not None:
        yield Finding(code="chain.broken", image=path, message=link.message, hint=link.hint)
    if link.parent is None:
        return
    parent = forest.members[link.parent]
    if not parent.plausible:
        yield Finding(
            code="chain.untrusted",
            image=path,
            message=f"its parent {link.target} is not a disk image, or a device of this host",
            hint="the image may be an attack on this host; do not open it",
        )
        return
    yield from _format(member, parent)
    if _written_after(member, parent):
        yield Finding(
            code="chain.parent-changed",
            image=path,
            message=f"its parent {parent.path} was written to after it was made: what the guest "
            "reads may be a mixture of both",
            hint="if somebody started a guest on the parent, restore the parent from a backup; "
            "nothing else mends it",
            command=command_line(["imgtools", "filesystems", "-a", path]),
        )


def _missing(member: Member, link: Link, by_name: dict[str, list[Member]]) -> Finding:
    assert link.target is not None
    found = [one for one in by_name.get(link.target.name, ()) if one.identity != member.identity]
    fits = [one for one in found if _could_be_parent(one, member)]
    if not fits:
        near = f"; {found[0].path} has its name, but another format or size" if found else ""
        return Finding(
            code="chain.parent-missing",
            image=member.path,
            message=f"{link.message}{near}",
            hint="bring it back to that place, or restore it from a backup",
        )
    where = ", ".join(str(one.path) for one in fits[:5]) + (" …" if len(fits) > 5 else "")
    one = fits[0]
    return Finding(
        code="chain.parent-moved",
        image=member.path,
        message=f"{link.message}; of its name, format and size there is {where}",
        hint="nothing in the overlay proves which file was its parent; you must know",
        command=command_line(_rebase(member, _name_for(member, one.path), one.format)),
    )


def _could_be_parent(candidate: Member, member: Member) -> bool:
    stated = _stated(member)
    same_format = stated is None or stated == candidate.format
    return same_format and not candidate.fatal and candidate.virtual_size == member.virtual_size


def _format(member: Member, parent: Member) -> Iterator[Finding]:
    stated = _stated(member)
    stored = member.backing_file or b""
    path, actual = member.path, parent.format
    if parent.fatal:
        return
    if stated is None:
        if member.format != "qcow2":  # no other format can store it
            return
        yield Finding(
            code="chain.no-format",
            image=path,
            message=f"does not say of which format its parent {parent.path} is ({actual} by its "
            "header): a guest that writes a header into a raw parent chooses it",
            command=command_line(_rebase(member, stored, actual)),
            mend=_store(member, stored, actual) if _certain(parent) else None,
        )
    elif not _agree(stated, actual):
        yield Finding(
            code="chain.wrong-format",
            image=path,
            message=f"says that its parent {parent.path} is {_shown(stated)}, its header says "
            f"{actual}",
            hint=_wrong_hint(stated, actual),
            command=command_line(_rebase(member, stored, actual)),
        )


def _wrong_hint(stated: str, actual: str) -> str:
    if stated == "raw":
        return (
            f"only if you know that the parent was made as {actual}: else its guest has written "
            "that header, and raw is right"
        )
    if actual == "raw":
        return "the parent has no such header: it was converted, replaced or overwritten"
    return "the parent was converted or replaced; compare it with a backup first"


def _agree(stated: str, actual: str) -> bool:
    # A LUKS container is a raw disk, a fixed VHD one with a footer.
    return stated == actual or (stated == "raw" and actual in ("luks", "vpc"))


def _shown(stated: str) -> str:
    return stated if stated in KNOWN_FORMATS else repr(stated[:40])


def _certain(parent: Member) -> bool:
    """True when a parent's format needs no choice.

    An unmarked raw one is raw for everybody; a header in a file that is called raw may be the
    guest's.
    """
    return parent.format == "raw" or parent.path.suffix.lower() not in RAW_SUFFIXES


def _store(member: Member, stored: bytes, actual: str) -> Callable[[], None]:
    def mend() -> None:
        from imgtools.image.backing import store_backing_format

        store_backing_format(member.path, stored, "raw" if actual == "luks" else actual)

    return mend


def _stated(member: Member) -> str | None:
    stated = member.backing_format
    return None if not stated else _ALIASES.get(stated, stated)


def _written_after(member: Member, parent: Member) -> bool:
    """True when the parent was written to after the overlay was made, and that matters.

    The overlay's birth is what its file system says.  A parent that was itself born later was
    copied or moved here, and its time of writing says nothing.  Without births: a parent that is
    newer than its overlay.  An overlay that holds nothing of its own fits any parent; nor did a
    guest write to a parent that holds nothing (a commit has emptied it).
    """
    made, parent_made = birth_time(member.path), birth_time(parent.path)
    if made is not None and parent_made is not None:
        late = parent_made <= made and parent.mtime_ns > made + _SLACK
    else:
        late = parent.mtime_ns > member.mtime_ns + _SLACK
    return late and holds_data(member) and holds_data(parent)


def _rebase(member: Member, name: bytes, image_format: str) -> list[str]:
    kind = "raw" if image_format == "luks" else image_format
    overlay = str(member.path.absolute())
    return ["imgtools", "image", "rebase", "-u", "-b", os.fsdecode(name), "-F", kind, overlay]


def _name_for(member: Member, parent: Path) -> bytes:
    """How the overlay is to name its parent: relative if it did so before."""
    real = os.path.realpath(parent)
    if (member.backing_file or b"/").startswith((b"/", b"file:")):
        return os.fsencode(real)
    name = os.fsencode(os.path.relpath(real, os.path.realpath(member.path.absolute().parent)))
    return b"./" + name if protocol_of(name) is not None else name
