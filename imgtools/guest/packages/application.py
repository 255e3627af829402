"""An installed package, and a bounded place to collect packages in.

A guest's database may claim a million packages or describe one in a gigabyte of text: what is
kept is bounded by count and by characters, and the list then says that it is not complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

MAX_APPLICATIONS = 50_000  # several times the largest installations seen
MAX_TEXT = 48 << 20  # characters kept in all; a big desktop has 2 MiB
MAX_FIELD = 1 << 16
MAX_EPOCH = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A package: ``version`` and ``release`` as the distribution splits them.

    ``source_package`` is the source package's name (for rpm, the source rpm's file name);
    ``publisher`` its vendor, packager or maintainer.
    """

    name: str
    display_name: str = ""
    epoch: int = 0
    version: str = ""
    release: str = ""
    arch: str = ""
    install_path: str = ""
    publisher: str = ""
    url: str = ""
    source_package: str = ""
    summary: str = ""
    description: str = ""


_TEXT_FIELDS = [f.name for f in fields(Application) if f.name != "epoch"]


@dataclass(slots=True)
class Collection:
    """Packages found so far; ``complaints`` say what was left out and why."""

    applications: list[Application] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _text: int = 0

    @property
    def full(self) -> bool:
        """True when no more packages are taken; the reader should stop reading."""
        return len(self.applications) >= MAX_APPLICATIONS or self._text >= MAX_TEXT

    def add(self, application: Application) -> None:
        """Take a package, unless it has no name or there are too many already."""
        if self.full:
            self.complain(f"more than {len(self.applications)} packages; the rest is not listed")
        elif application.name:
            self._text += sum(len(getattr(application, name)) for name in _TEXT_FIELDS)
            self.applications.append(application)

    def complain(self, what: str) -> None:
        """Note something that was left out, once, and not endlessly."""
        if what not in self.complaints and len(self.complaints) < 20:
            self.complaints.append(what)

    def sorted(self) -> list[Application]:
        """The packages by name in byte order; equal names keep the database's order."""
        return sorted(self.applications, key=lambda a: a.name.encode(errors="surrogateescape"))


def text(raw: bytes) -> str:
    """Guest bytes as text of bounded length."""
    return raw[:MAX_FIELD].decode("utf-8", errors="surrogateescape")


def parse_epoch(digits: bytes) -> int | None:
    """A package epoch, None if it is not a number that fits 31 bits."""
    if not digits.isdigit() or len(digits) > 10:
        return None
    value = int(digits)
    return value if value <= MAX_EPOCH else None


def split_version(raw: bytes) -> tuple[int, bytes, bytes] | None:
    """Split ``epoch:version-release``, at the first colon and the first hyphen as libguestfs.

    The release may be missing.  None when the epoch is not a number.
    """
    before, colon, after = raw.partition(b":")
    epoch = parse_epoch(before) if colon else 0
    if epoch is None:
        return None
    version, _, release = (after if colon else raw).partition(b"-")
    return epoch, version, release
