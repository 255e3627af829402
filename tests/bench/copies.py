"""``imgtools convert`` against ``qemu-img convert``: a 4 GiB disk, half of it data, in turn."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.measure import Measurement, measure

IMGTOOLS = str(Path(sys.executable).with_name("imgtools"))
SIZE = 4 << 30
_PIECE = 1 << 20


def copies(runs: int) -> tuple[Measurement, Measurement]:
    """The medians of ours and of qemu-img's, raw to qcow2, each brought to its storage.

    qemu-img leaves the copy in the page cache: its run ends with a sync of the file, as ours does.
    Each goes first as often as the other, and once more than is counted: a first run reads the
    source and the programs from the storage.
    """
    with tempfile.TemporaryDirectory(prefix="imgtools-bench-") as name:
        folder = Path(name)
        source = _half_full(folder / "disk.img")
        ours = [IMGTOOLS, "convert", "-f", "raw", "-O", "qcow2", str(source), str(folder / "copy")]
        plain = f"qemu-img convert -f raw -O qcow2 {source} {folder}/copy && sync {folder}/copy"
        pair = [("ours", ours), ("theirs", ["sh", "-c", plain])]
        times: dict[str, list[Measurement]] = {"ours": [], "theirs": []}
        for _ in range(runs + 1):
            for who, argv in pair:
                os.sync()  # what the run before left to be written is not this one's
                with tempfile.TemporaryFile() as sink:
                    times[who].append(measure(argv, env=dict(os.environ), stdout=sink))
                (folder / "copy").unlink()
            pair.reverse()
    return _median(times["ours"][1:]), _median(times["theirs"][1:])


def _half_full(path: Path) -> Path:
    """Every other MiB holds data that do not repeat within a cluster."""
    with path.open("wb") as stream:
        stream.truncate(SIZE)
        piece = os.urandom(_PIECE)
        for offset in range(0, SIZE, 2 * _PIECE):
            stream.seek(offset)
            stream.write(piece)
    return path


def _median(found: list[Measurement]) -> Measurement:
    return Measurement(
        seconds=statistics.median(one.seconds for one in found),
        peak=max(one.peak for one in found),
    )
