"""``make torture``: kill a real edit at many points, and look whether anything was lost.

Each round writes a new file content into a small guest, is killed with everything that it started,
and then looks: before the commit the image is byte for byte as it was; after ``imgtools recover``
the guest's files and ``qemu-img check`` show the old state or the new one, never another.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fixtures
from tests.appliance.kills import Point, run_and_kill
from tests.cli import imgtools

BIG = 6 << 20  # bytes that a round writes: enough that a commit has a middle
OLD, NEW = b"old", b"new"


@dataclass(slots=True)
class Tally:
    """What the rounds came to."""

    points: set[Point] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{len(self.points)} points: " + ", ".join(
            f"{count} {name}" for name, count in sorted(self.outcomes.items())
        )


class Torture:
    """One image, tortured."""

    def __init__(self, folder: Path, image_format: str) -> None:
        self.folder = folder
        self.format = image_format
        self.start = folder / f"start.{image_format}"
        self.image = folder / f"guest.{image_format}"
        self.tally = Tally()
        self._make()
        # How long each phase takes here, so that the points lie inside.
        self.times = self._measure()

    def _make(self) -> None:
        source = fixtures.get("ext4")
        convert = ["qemu-img", "convert", "-f", "qcow2", "-O", self.format]
        subprocess.run([*convert, str(source), str(self.start)], check=True)
        steps = self._steps("old.txt", OLD)
        done = imgtools("apply", "-a", self.start, "-m", "/dev/sda", steps)
        assert done.code == 0, done.stderr
        self.new = self._steps("new.txt", NEW)
        self.before = _sum(self.start)

    def _steps(self, name: str, word: bytes) -> Path:
        """Three files that change together."""
        body = self.folder / f"{name}.body"
        body.write_bytes((word * BIG)[:BIG])
        lines = [
            f"write /a --content {word.decode()}",
            f"write /big --from {body}",
            f"write /b --content {word.decode()}",
        ]
        path = self.folder / name
        path.write_text("\n".join(lines))
        return path

    def _measure(self) -> dict[str, float]:
        """Seconds from the start to the overlay, to the record of the commit, and to the end."""
        self._fresh()
        record = self.image.with_name(f".{self.image.name}.imgtools")
        begin = time.monotonic()
        seen: dict[str, float] = {}
        with subprocess.Popen([*self._words()], stdout=subprocess.DEVNULL) as child:
            while child.poll() is None:
                if "work" not in seen and any(self.folder.glob(".guest*.imgtools-*.qcow2")):
                    seen["work"] = time.monotonic()
                committing = _is_committing(record)
                if committing and "commit" not in seen:
                    seen["commit"] = time.monotonic()
                if "commit" in seen and not committing and "end" not in seen:
                    seen["end"] = time.monotonic()
                time.sleep(0.001)
        assert child.returncode == 0
        assert set(seen) == {"work", "commit", "end"}
        return {
            "begin": seen["work"] - begin,
            "work": seen["commit"] - seen["work"],
            "commit": seen["end"] - seen["commit"],
        }

    def _words(self) -> list[str]:
        from tests.cli import PROGRAM

        return [str(PROGRAM), *map(str, self._arguments())]

    def _arguments(self) -> list[str | Path]:
        return ["apply", "-a", self.image, "-m", "/dev/sda", self.new]

    def _fresh(self) -> None:
        for path in self.folder.glob(f".{self.image.name}.imgtools*"):
            path.unlink()
        shutil.copyfile(self.start, self.image)

    def points(self, count: int) -> Iterator[Point]:
        """``count`` points: a fifth at the beginning, two fifths each in work and commit."""
        shares = {"begin": count // 5, "work": count * 2 // 5}
        shares["commit"] = count - sum(shares.values())
        for phase, share in shares.items():
            for index in range(share):
                # A little beyond the phase, since no two runs take the same time.
                yield Point(phase, self.times[phase] * 1.1 * index / share)

    def round(self, point: Point) -> None:
        """One kill, and what it left."""
        self._fresh()
        killed = run_and_kill(self._arguments(), self.image, point)
        self.tally.points.add(point)
        record = self.image.with_name(f".{self.image.name}.imgtools")
        committing = _is_committing(record)
        if not committing and not killed.ended and point.phase != "commit":
            untouched = _sum(self.image) == self.before or self._state() == NEW
            assert untouched, (point, "changed before its commit")
        if committing:
            assert self._state() == NEW, (point, "not read through its overlay")
        done = imgtools("recover", self.image)
        assert done.code == 0, (point, done.stderr)
        state = self._state()
        if killed.ended or committing:
            assert state == NEW, (point, "what was committed is lost")
        self._check(point)
        left = [path.name for path in self.folder.glob(".guest*")]
        assert not left, (point, left)
        if not committing and not killed.ended and state == OLD:
            assert _sum(self.image) == self.before, (point, "not byte for byte as before")
        phase = "commit finished" if committing else "as before" if state == OLD else "complete"
        self.tally.outcomes[f"{point.phase}: {phase}"] += 1

    def _state(self) -> bytes:
        """Which of the two states all three files show."""
        done = imgtools("cat", "-q", "-a", self.image, "-m", "/dev/sda", "/a", "/b", "/big")
        assert done.code == 0, done.stderr
        for word in (OLD, NEW):
            if done.stdout == word + b"\n" + word + b"\n" + (word * BIG)[:BIG]:
                return word
        raise AssertionError(f"neither the old nor the new state: {done.stdout[:20]!r}")

    def _check(self, point: Point) -> None:
        if self.format == "raw":
            return
        check = ["qemu-img", "check", "-f", self.format, str(self.image)]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (point, done.stdout, done.stderr)


def _is_committing(record: Path) -> bool:
    try:
        return b'"committing"' in record.read_bytes()
    except OSError:
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Torture both formats and print what came of it."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="kills for each format")
    options = parser.parse_args()
    for image_format in ("raw", "qcow2"):
        with tempfile.TemporaryDirectory(prefix="imgtools-torture-") as folder:
            torture = Torture(Path(folder), image_format)
            for number, point in enumerate(torture.points(options.kills), 1):
                torture.round(point)
                if sys.stderr.isatty():
                    print(f"\r{image_format} {number}/{options.kills}", end="", file=sys.stderr)
            print(f"{image_format}: {torture.tally}")


if __name__ == "__main__":
    main()
