"""Launches of the instant and the stock appliance in turn, with 1, 4 and 16 disks."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from imgtools.appliance import instant
from imgtools.config import load
from imgtools.errors import ImgtoolsError
from tests.appliance.ways import Way, new_handle, scratch

DISKS = (1, 4, 16)
SIZE = 64 << 20


def compare(runs: int) -> None:
    """Print the table: launch, and launch with list_filesystems and close."""
    try:
        instant.current(load())
    except ImgtoolsError as error:
        print(f"\nno instant appliance: {error.message}")
        return
    print("\nlaunch of the appliance, and of all with list_filesystems and close (medians)\n")
    print(
        f"{'disks':>5}{'instant':>10}{'stock':>10}{'ratio':>7}{'all':>10}{'stock':>10}{'ratio':>7}"
    )
    for count in DISKS:
        times: dict[Way, list[tuple[float, float]]] = {"instant": [], "stock": []}
        for _ in range(runs):
            for way, found in times.items():
                found.append(_once(way, count))
        ours, theirs = (
            [statistics.median(values) for values in zip(*times[way], strict=True)]
            for way in ("instant", "stock")
        )
        cells = [
            f"{mine:>8.2f} s{other:>8.2f} s{other / mine:>6.1f}x"
            for mine, other in zip(ours, theirs, strict=True)
        ]
        print(f"{count:>5}{''.join(cells)}", flush=True)


def _once(way: Way, count: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="imgtools-bench-") as name:
        handle = new_handle(way)
        for index in range(count):
            drive = scratch(Path(name), str(index), SIZE)
            handle.add_drive_opts(str(drive.path), format="raw", cachemode="unsafe")
        begin = time.perf_counter()
        handle.launch()
        launched = time.perf_counter() - begin
        handle.list_filesystems()
        handle.close()
        return launched, time.perf_counter() - begin
