"""Lines of ``imgtools ls``: virt-ls's formats (cat/ls.c), and ``ls -la``'s for ``-l``."""

from __future__ import annotations

import re
import stat as _stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from imgtools.cli.human import human_size
from imgtools.cli.render import csv_field
from imgtools.model.files import Stat
from imgtools.workflow.ls import Entry

Times = Literal["iso", "time_t", "relative", "days"]

_LETTERS = {"r": "-", "f": "p"}
_HALF_A_YEAR = 31556952 // 2  # ls(1)'s idea of recent
_BILLION = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFormat:
    """Which columns a long recursive line has; ``now`` in seconds since the epoch.

    ``atime`` says whether the times begin with that of the last access; ``plain`` is virt-diff's
    CSV, which neither pads owners nor keeps a place for a checksum that is not there.
    """

    csv: bool = False
    plain: bool = False
    human: bool = False
    uids: bool = False
    times: Times | None = None
    atime: bool = True
    extra: bool = False
    checksum: bool = False
    now: int = 0


def long_line(entry: Entry, form: LineFormat, show: Callable[[bytes], bytes]) -> bytes:
    """One line of ``-lR``; ``show`` makes a name fit for where it is printed."""
    stat = entry.stat
    assert stat is not None
    size = human_size(stat.size) if form.human else str(stat.size)
    words = [type_letter(stat), f"{_stat.S_IMODE(stat.mode):04o}"]
    words.append(size if form.csv else f"{size:>10}")
    if form.uids:
        words += [f"{owner:{0 if form.plain else 4}d}" for owner in (stat.uid, stat.gid)]
    if form.times is not None:
        stamps = (stat.atime_ns, stat.mtime_ns, stat.ctime_ns)[0 if form.atime else 1 :]
        words += [_moment(stamp // _BILLION, form.times, form.now) for stamp in stamps]
    if form.extra:
        words += [_device(entry.device), str(stat.ino), str(stat.nlink)]
        words += [_numbers(stat.rdev), str(stat.blocks)]
    fields = [word.encode() for word in words]
    if form.checksum and (entry.checksum is not None or (form.csv and not form.plain)):
        fields.append((entry.checksum or "").encode())
    if form.csv:
        fields += [csv_field(name) for name in (entry.name, entry.target) if name is not None]
        return b",".join(fields)
    fields.append(show(entry.name))
    if entry.target is not None:
        fields += [b"->", show(entry.target)]
    return b" ".join(fields)


def type_letter(stat: Stat) -> str:
    """virt-ls's first column."""
    return _LETTERS.get(stat.kind, stat.kind)


def _moment(seconds: int, times: Times, now: int) -> str:
    if times == "time_t":
        return f"{seconds:10d}"
    if times == "relative":
        return f"{now - seconds:8d}"
    if times == "days":
        age = now - seconds
        # C divides towards zero.
        return f"{-(-age // 86400) if age < 0 else age // 86400:3d}"
    return _local(seconds, "%Y-%m-%d %H:%M:%S")


def _local(seconds: int, form: str) -> str:
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _numbers(rdev: int) -> str:
    """``major:minor`` of a Linux device number (glibc's encoding, gnu_dev_major)."""
    return f"{_major(rdev)}:{_minor(rdev)}"


def _major(rdev: int) -> int:
    return ((rdev >> 8) & 0xFFF) | ((rdev >> 32) & ~0xFFF)


def _minor(rdev: int) -> int:
    return (rdev & 0xFF) | ((rdev >> 12) & ~0xFF)


def _device(device: str) -> str:
    """The device number that Linux gives a disk's partition in the appliance.

    It says nothing about the guest, and for a device-mapper or btrfs volume it depends on the
    order of activation: those are 0:0.
    """
    match = re.fullmatch(r"/dev/sd([a-p])(\d{1,2})?", device)
    if match is None:
        return "0:0"
    return f"8:{16 * (ord(match[1]) - ord('a')) + int(match[2] or 0)}"


# --- ls -la --------------------------------------------------------------------------------------


def long_directory(
    entries: Sequence[Entry], *, now: int, show: Callable[[bytes], bytes]
) -> list[bytes]:
    """The lines that ``ls -la`` prints for one directory in the C locale (coreutils ls.c).

    Owners are numbers: virt-ls runs ls where the guest's names are not known.
    """
    stats = [_stat_of(entry) for entry in entries]
    flagged = any(entry.flag for entry in entries)
    modes = [_stat.filemode(stat.mode) for stat in stats]
    if flagged:
        modes = [mode + (entry.flag or " ") for mode, entry in zip(modes, entries, strict=True)]
    columns = [
        [mode.encode() for mode in modes],
        _right([b"%d" % stat.nlink for stat in stats]),
        _right([b"%d" % stat.uid for stat in stats]),
        _right([b"%d" % stat.gid for stat in stats]),
        [size.encode() for size in _size_column(stats)],
        [_ls_time(stat.mtime_ns, now).encode() for stat in stats],
        [_name_and_target(entry, show) for entry in entries],
    ]
    total = b"total %d" % -(-sum(stat.blocks for stat in stats) // 2)
    return [total, *(b" ".join(cells) for cells in zip(*columns, strict=True))]


def _right(cells: list[bytes]) -> list[bytes]:
    width = max(map(len, cells), default=0)
    return [cell.rjust(width) for cell in cells]


def _name_and_target(entry: Entry, show: Callable[[bytes], bytes]) -> bytes:
    name = show(entry.name)
    return name if entry.target is None else name + b" -> " + show(entry.target)


def _stat_of(entry: Entry) -> Stat:
    assert entry.stat is not None
    return entry.stat


def _size_column(stats: Sequence[Stat]) -> list[str]:
    """Sizes, and ``major, minor`` of devices, right-aligned together."""
    devices = [stat for stat in stats if stat.kind in ("b", "c")]
    minor_width = max((len(str(_minor(stat.rdev))) for stat in devices), default=0)
    major_width = max((len(str(_major(stat.rdev))) for stat in devices), default=0)
    width = max((len(str(stat.size)) for stat in stats if stat.kind not in ("b", "c")), default=0)
    if devices:
        width = max(width, major_width + 2 + minor_width)
    cells = []
    for stat in stats:
        if stat.kind in ("b", "c"):
            text = f"{_major(stat.rdev)}, {_minor(stat.rdev):>{minor_width}}"
        else:
            text = str(stat.size)
        cells.append(text.rjust(width))
    return cells


def _ls_time(mtime_ns: int, now: int) -> str:
    seconds = mtime_ns // _BILLION
    recent = now - _HALF_A_YEAR < seconds <= now
    return _local(seconds, "%b %e %H:%M" if recent else "%b %e  %Y")
