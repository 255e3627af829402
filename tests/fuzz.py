"""Flip bytes in images and read them with the direct engine: no traceback, no hang, bounded memory.

``python -m tests.fuzz --cases N`` is the long run; ``tests/direct/test_fuzz.py`` runs a short one.
Flips are seeded, so that a failure names what repeats it.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fixtures
from imgtools.errors import ImgtoolsError
from imgtools.guest.opening import Session, run_on_engine
from imgtools.model.disks import DiskRequest
from imgtools.model.storage import Filesystem
from imgtools.workflow.opening import resolve_disks

CASE_SECONDS = 20
MEMORY = 3 << 30  # address space; a lying size that is believed hits it
WALK_LIMIT = 300


class HangError(BaseException):
    """A case took longer than `CASE_SECONDS`; a BaseException, so that nothing swallows it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not end as it must."""

    image: str
    seed: int
    what: str


def images() -> list[str]:
    """The fixtures that are small enough to be flipped thousands of times."""
    return [
        name
        for name in fixtures.names()
        if len(fixtures.disks(name)) == 1 and fixtures.get(name).stat().st_blocks * 512 < 48 << 20
    ]


def run_cases(name: str, cases: int, *, seed: int = 0) -> Iterator[Failure]:
    """Flip and read the fixture ``name`` ``cases`` times; yield every failure."""
    with tempfile.TemporaryDirectory(prefix="imgtools-fuzz-") as folder:
        original = fixtures.get(name)
        copy = Path(folder) / original.name
        shutil.copy(original, copy)
        targets = _interesting(copy)
        for number in range(seed, seed + cases):
            with _flipped(copy, targets, random.Random(f"{name}-{number}")):
                failure = _read(copy)
            if failure is not None:
                yield Failure(image=name, seed=number, what=failure)


def _interesting(image: Path) -> list[int]:
    """Offsets of some bytes that are not zero, in order; metadata comes early in most formats."""
    offsets = []
    with image.open("rb") as stream:
        position = 0
        while chunk := stream.read(1 << 16):
            if len(offsets) < 200_000 and chunk.count(0) != len(chunk):
                offsets += [position + i for i in range(0, len(chunk), 7) if chunk[i]]
            position += len(chunk)
    return offsets or [0]


@contextmanager
def _flipped(image: Path, targets: list[int], source: random.Random) -> Iterator[None]:
    saved: list[tuple[int, bytes]] = []
    with image.open("r+b", buffering=0) as stream:
        for _ in range(source.choice([1, 1, 2, 4, 16])):
            offset = source.choice(targets) if source.random() < 0.7 else _early(source, targets)
            stream.seek(offset)
            old = stream.read(1)
            saved.append((offset, old))
            stream.seek(offset)
            stream.write(bytes([source.choice([0, 0xFF, 0x7F, 0x80, source.randrange(256)])]))
    try:
        yield
    finally:
        with image.open("r+b", buffering=0) as stream:
            for offset, old in reversed(saved):
                stream.seek(offset)
                stream.write(old)


def _early(source: random.Random, targets: list[int]) -> int:
    return targets[int(len(targets) * source.random() ** 4)]


def _read(image: Path) -> str | None:
    """Read all that commands read; None if it ended well or with one of our errors."""
    begin = time.monotonic()
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(CASE_SECONDS)
    try:
        disks = resolve_disks([DiskRequest(path=image)], untrusted=True)
        run_on_engine(_everything, disks, name="fuzz", choice="direct")
    except ImgtoolsError:
        return None
    except HangError:
        return f"hang: {traceback.format_exc(limit=-6)}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    seconds = time.monotonic() - begin
    return f"slow: {seconds:.1f} s" if seconds > CASE_SECONDS else None


def _hang(_number: int, _frame: object) -> None:
    raise HangError


def _everything(session: Session) -> None:
    from imgtools.guest.inspecting import inspect_guests

    for filesystem in session.engine.storage().filesystems:
        _survive(lambda item=filesystem: _read_filesystem(session, item))
    inspect_guests(session)


def _survive(task: Callable[[], None]) -> None:
    try:
        task()
    except ImgtoolsError:
        return


def _read_filesystem(session: Session, filesystem: Filesystem) -> None:
    from imgtools.guest.tree import GuestTree, Mount

    if not filesystem.mountable:
        return
    tree = session.engine.mount(filesystem.device)
    guest = GuestTree([Mount(b"/", filesystem.device, tree)])
    _survive(lambda: _discard(tree.statvfs()))
    for count, (path, _entry, found) in enumerate(guest.walk(b"/")):
        if count > WALK_LIMIT:
            break
        _survive(lambda p=path: _discard(guest.getxattrs(p)))
        if found.kind == "r":
            _survive(lambda p=path: _read_file(guest, p))
        elif found.kind == "l":
            _survive(lambda p=path: _discard(guest.readlink(p)))


def _read_file(guest: object, path: bytes) -> None:
    with guest.open(path) as stream:  # type: ignore[attr-defined]
        stream.read(1 << 20)


def _discard(_value: object) -> None:
    pass


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="cases over all images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", action="append", help="only this fixture (repeatable)")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    names = options.image or images()
    failures = 0
    for name in names:
        each = max(1, options.cases // len(names))
        begin = time.monotonic()
        for failure in run_cases(name, each, seed=options.seed):
            failures += 1
            print(f"\n{failure.image} seed {failure.seed}:\n{failure.what}", flush=True)
        print(f"{name}: {each} cases, {time.monotonic() - begin:.1f} s", flush=True)
    print(f"{failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
