"""The same edit by imgtools, by virt-edit, and by a bare appliance without any transaction."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from imgtools.appliance import instant
from imgtools.config import load
from imgtools.errors import ImgtoolsError
from tests.appliance.ways import new_handle
from tests.bench.measure import Measurement, measure

FILE = "/etc/fstab"
ROOT = "/dev/debian-vg/root"
# Changes the file in every run.
EXPRESSION = "s/$/ #/ if $lineno == 1"


def edit(words: list[str], image: Path, runs: int, environment: dict[str, str]) -> Measurement:
    """``words -a COPY FILE -e EXPRESSION`` on a scratch overlay of ``image``: medians."""
    with tempfile.TemporaryDirectory(prefix="imgtools-bench-") as name:
        copy = _scratch(image, Path(name))
        argv = [*words, "-a", str(copy), FILE, "-e", EXPRESSION]
        with tempfile.TemporaryFile() as sink:
            results = [measure(argv, env=environment, stdout=sink) for _ in range(runs)]
    return Measurement(
        seconds=statistics.median(result.seconds for result in results),
        peak=max(result.peak for result in results),
    )


def prepare(words: list[str], image: Path, runs: int, environment: dict[str, str]) -> Measurement:
    """``words -a COPY``, each run on a fresh scratch overlay of ``image``: medians."""
    results = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="imgtools-bench-") as name:
            copy = _scratch(image, Path(name))
            with tempfile.TemporaryFile() as sink:
                results.append(measure([*words, "-a", str(copy)], env=environment, stdout=sink))
    return Measurement(
        seconds=statistics.median(result.seconds for result in results),
        peak=max(result.peak for result in results),
    )


def bare(image: Path, runs: int) -> float | None:
    """Seconds (median) of launch, mount, read, write and close on the instant appliance.

    What an edit costs without a program's start, locks, overlay, check and commit.  None without
    an instant appliance.
    """
    try:
        instant.current(load())
    except ImgtoolsError:
        return None
    with tempfile.TemporaryDirectory(prefix="imgtools-bench-") as name:
        copy = _scratch(image, Path(name))
        return statistics.median(_bare(copy) for _ in range(runs))


def _bare(image: Path) -> float:
    begin = time.perf_counter()
    handle = new_handle("instant")
    handle.add_drive_opts(str(image), format="qcow2")
    handle.launch()
    handle.mount(ROOT, "/")
    handle.write(FILE, handle.read_file(FILE).replace(b"\n", b" #\n", 1))
    handle.shutdown()
    handle.close()
    return time.perf_counter() - begin


def _scratch(image: Path, folder: Path) -> Path:
    copy = folder / "disk.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, copy]
    subprocess.run(command, check=True)
    return copy
