"""The forest of backing chains: which image rests on which.

Only headers are read.  A parent that lies outside the scanned folder is looked at as well (unless
the images are untrusted) and becomes a member of the forest; nothing is ever opened by a name that
is more than a plain file's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imgtools.errors import ImageNotFoundError, ImageTruncatedError, ImgtoolsError
from imgtools.image.member import Identity, Member, look, outside
from imgtools.image.reference import resolve_reference
from imgtools.image.scan import Scan

MAX_OUTSIDE = 20_000
"""How many parents outside the folder are followed."""

Broken = Literal["missing", "reference", "outside", "unreadable", "nameless"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From an image to its parent: where its name leads, and which image that is.

    ``broken`` says why there is none, in a word, and ``message`` in full.
    """

    target: Path | None = None
    parent: Identity | None = None
    broken: Broken | None = None
    message: str = ""
    hint: str | None = None


@dataclass(slots=True, kw_only=True)
class Forest:
    """All members by identity, the link of each that has a parent, and its children.

    ``outside``: members that lie elsewhere; ``parts``: members that are data files or extents of
    another one, with that; ``loops``: each as its members, the first of which is in ``starts``.
    """

    members: dict[Identity, Member]
    links: dict[Identity, Link] = field(default_factory=dict)
    children: dict[Identity, list[Identity]] = field(default_factory=dict)
    outside: set[Identity] = field(default_factory=set)
    parts: dict[Identity, Identity] = field(default_factory=dict)
    held: dict[Identity, list[Identity]] = field(default_factory=dict)
    lost_parts: list[tuple[Identity, Path]] = field(default_factory=list)
    loops: list[tuple[Identity, ...]] = field(default_factory=list)
    starts: frozenset[Identity] = frozenset()
    depths: dict[Identity, int] = field(default_factory=dict)

    def path(self, identity: Identity) -> Path:
        """The path of a member."""
        return self.members[identity].path

    def roots(self) -> list[Identity]:
        """What rests on nothing (that is there), and one image of each loop; by path."""
        found = [
            one
            for one in self.members
            if one not in self.parts
            and (one in self.starts or one not in self.links or self.links[one].parent is None)
        ]
        return sorted(found, key=self.path)

    def below(self, identity: Identity) -> list[Identity]:
        """The parts of an image, then what rests on it; the start of a loop not again."""
        resting = (one for one in self.children.get(identity, ()) if one not in self.starts)
        return [*self.held.get(identity, ()), *resting]

    def tree_of(self, identity: Identity) -> set[Identity]:
        """The images connected with ``identity``: its chain, and all that rests on any of it."""
        found: set[Identity] = set()
        waiting = [self.parts.get(identity, identity)]
        while waiting:
            one = waiting.pop()
            if one in found:
                continue
            found.add(one)
            waiting += self.below(one)
            waiting += self.children.get(one, ())
            link = self.links.get(one)
            if link is not None and link.parent is not None:
                waiting.append(link.parent)
        return found


def grow(
    scan: Scan, *, untrusted: bool = False, formats: Mapping[Identity, str | None] | None = None
) -> Forest:
    """Follow every reference of what was scanned.  Never raises for what is wrong with an image."""
    forest = Forest(members=dict(scan.members))
    claims: dict[Identity, Identity] = {}
    waiting = deque(sorted(forest.members, key=forest.path))
    while waiting:
        identity = waiting.popleft()
        member = forest.members[identity]
        for part in _parts_of(forest, member, untrusted=untrusted):
            claims.setdefault(part, identity)
        if not member.has_parent:
            continue
        link, parent = _follow(member, forest, untrusted=untrusted, formats=formats or {})
        forest.links[identity] = link
        if link.parent is None:
            continue
        forest.children.setdefault(link.parent, []).append(identity)
        if parent is not None:
            forest.members[link.parent] = parent
            forest.outside.add(link.parent)
            waiting.append(link.parent)
    _settle_claims(forest, claims)
    for ones in forest.children.values():
        ones.sort(key=forest.path)
    forest.loops = list(_loops(forest))
    forest.starts = frozenset(loop[0] for loop in forest.loops)
    _measure(forest)
    return forest


def _parts_of(forest: Forest, member: Member, *, untrusted: bool) -> Iterator[Identity]:
    """The identities of the other files of an image; those that are not there are noted."""
    for path in member.parts:
        if untrusted and outside(path, member.path):
            continue
        try:
            status = path.stat()
        except OSError:
            forest.lost_parts.append((member.identity, path))
            continue
        identity = (status.st_dev, status.st_ino)
        if identity != member.identity:
            yield identity


def _settle_claims(forest: Forest, claims: Mapping[Identity, Identity]) -> None:
    """Only what is no link of a chain itself is a part: a claim hides nothing."""
    for part in sorted(claims.keys() & forest.members.keys(), key=forest.path):
        owner = claims[part]
        chained = part in forest.links or part in forest.children
        if not chained and owner not in forest.parts and part not in forest.held:
            forest.parts[part] = owner
            forest.held.setdefault(owner, []).append(part)


def _follow(
    member: Member,
    forest: Forest,
    *,
    untrusted: bool,
    formats: Mapping[Identity, str | None],
) -> tuple[Link, Member | None]:
    """The link of a member, and its parent if that is not in the forest yet."""
    if member.backing_file is None:
        return Link(broken="nameless", message="does not say where its parent is"), None
    try:
        target = resolve_reference(member.backing_file, member.path, "backing file")
    except ImgtoolsError as error:
        text = error.message.removeprefix(f"{member.path}: ")
        return Link(broken="reference", message=text, hint=error.hint), None
    if untrusted and outside(target, member.path):
        message = f"its parent {target} is outside the image's folder"
        return Link(target=target, broken="outside", message=message), None
    return _parent(target, forest, formats, untrusted=untrusted)


def _parent(
    target: Path, forest: Forest, formats: Mapping[Identity, str | None], *, untrusted: bool
) -> tuple[Link, Member | None]:
    try:
        status = target.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in forest.members:
            return Link(target=target, parent=identity), None
        if len(forest.outside) >= MAX_OUTSIDE:
            message = f"its parent {target} was not looked at: there are too many"
            return Link(target=target, broken="unreadable", message=message), None
        member = look(target, formats.get(identity), untrusted=untrusted)
    except (FileNotFoundError, NotADirectoryError, ImageNotFoundError):
        message = f"its parent {target} does not exist"
        return Link(target=target, broken="missing", message=message), None
    except ImageTruncatedError:
        message = f"its parent {target} is empty (0 bytes)"
        return Link(target=target, broken="unreadable", message=message), None
    except ImgtoolsError as error:
        message = f"its parent cannot be used: {error.message}"
        return Link(target=target, broken="unreadable", message=message, hint=error.hint), None
    except (OSError, ValueError) as error:
        message = f"its parent {target} cannot be used: {getattr(error, 'strerror', error)}"
        return Link(target=target, broken="unreadable", message=message), None
    assert member is not None
    if member.identity in forest.members:  # a block device
        return Link(target=target, parent=member.identity), None
    return Link(target=target, parent=member.identity), member


def _loops(forest: Forest) -> Iterator[tuple[Identity, ...]]:
    """Each loop once, from its first image by path; what only leads into it is left out."""
    done: set[Identity] = set()
    for start in sorted(forest.links, key=forest.path):
        way: dict[Identity, None] = {}
        one: Identity | None = start
        while one is not None and one not in done and one not in way:
            way[one] = None
            link = forest.links.get(one)
            one = link.parent if link is not None else None
        if one is not None and one in way:
            steps = list(way)
            loop = steps[steps.index(one) :]
            first = loop.index(min(loop, key=forest.path))
            yield (*loop[first:], *loop[:first])
        done.update(way)


def _measure(forest: Forest) -> None:
    """How many images are below each: 0 for a root, one more for each that rests on it."""
    waiting = [(root, 0) for root in forest.roots()]
    while waiting:
        one, depth = waiting.pop()
        if one in forest.depths:
            continue
        forest.depths[one] = depth
        waiting += [(child, depth + 1) for child in forest.children.get(one, ())]
