"""Old ids and the new ones that take their place, in every way in which files write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from imgtools.api import GuestOperationError, Text

_LVM_GROUPS = (6, 4, 4, 4, 4, 4, 6)
_NAMED_AROUND = 2  # bytes beside an id that decide whether it is one


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One way to write an id: ``write`` makes the same of the new one."""

    old: str
    write: Callable[[str], str]


def _plain(uuid: str) -> str:
    return uuid


def _escaped(uuid: str) -> str:
    r"""As systemd's units write it: unit names have ``\x2d`` for a hyphen."""
    return uuid.replace("-", "\\x2d")


def _bare(uuid: str) -> str:
    """As GRUB's cryptomount and device-mapper do."""
    return uuid.replace("-", "")


def dashed(lvm: str) -> str:
    """An id of LVM (32 characters) as its tools and GRUB write it."""
    parts, rest = [], lvm
    for size in _LVM_GROUPS:
        parts.append(rest[:size])
        rest = rest[size:]
    return "-".join(parts)


class Ids:
    """A substitution of ids by others of the same length.

    UUIDs are found in either case, which they keep; the ids of LVM have both cases.  New ids may
    become known only when the old ones are gone: `update`.
    """

    def __init__(self, *, lvm: bool = False) -> None:
        self._lvm = lvm
        self._new: dict[str, str] = {}
        self._forms: dict[bytes, _Form] = {}
        self._pattern: re.Pattern[bytes] | None = None
        self._heads: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._new)

    def update(self, ids: Mapping[str, str]) -> None:
        """Add ids, or say what the new ones are."""
        self._new.update(ids)
        self._forms = {}
        for old in self._new:
            writers = self._writers(old)
            self._forms.update(
                {self._key(write(old).encode()): _Form(old=old, write=write) for write in writers}
            )
        longest_first = sorted(self._forms, key=len, reverse=True)
        bounds = [self._bounded(form) for form in longest_first]
        flags = 0 if self._lvm else re.IGNORECASE
        self._pattern = re.compile(b"|".join(bounds), flags) if bounds else None
        heads = {re.split(rb"[-\\]", form)[0][:8] for form in self._forms}
        heads |= set() if self._lvm else {head.upper() for head in heads}
        self._heads = tuple(sorted(heads))

    def _writers(self, old: str) -> Iterator[Callable[[str], str]]:
        if self._lvm:
            yield from (_plain, dashed, lambda uuid: _escaped(dashed(uuid)))
            return
        yield from (_plain, _escaped)
        if len(old) > 9:  # eight digits alone may be anything
            yield _bare

    def _bounded(self, form: bytes) -> bytes:
        if self._lvm:  # names of device-mapper have two of them in a row
            return re.escape(form)
        # The four digits of a FAT's id are also in the middle of a UUID.
        beside = rb"[0-9A-Za-z-]" if len(form) == 9 else rb"[0-9A-Za-z]"
        return rb"(?<!%s)%s(?!%s)" % (beside, re.escape(form), beside)

    def _key(self, found: bytes) -> bytes:
        return found if self._lvm else found.lower()

    @property
    def text(self) -> Text:
        """What an initramfs is searched for."""
        longest = max(map(len, self._forms), default=0) + _NAMED_AROUND
        return Text(names=self.names, replace=self.replace, longest=longest)

    def names(self, data: bytes) -> bool:
        """True if one of the old ids is in it."""
        return (
            self._pattern is not None
            and any(head in data for head in self._heads)  # ten times as fast as the pattern
            and self._pattern.search(data) is not None
        )

    def replace(self, data: bytes) -> bytes:
        """The same with the new ids."""
        if self._pattern is None or not any(head in data for head in self._heads):
            return data
        return self._pattern.sub(self._other, data)

    def _other(self, match: re.Match[bytes]) -> bytes:
        found = match[0]
        form = self._forms[self._key(found)]
        new = form.write(self._new[form.old]).encode()
        if not self._lvm:
            letters = re.sub(rb"\\x2d|[^A-Za-z]", b"", found)
            new = new.upper().replace(b"\\X2D", b"\\x2d") if letters.isupper() else new.lower()
        if len(new) != len(found):
            raise GuestOperationError(f"{form.old}: the new id has another length")
        return new
