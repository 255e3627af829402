"""``make bench``: imgtools (auto) against the virt-* tools on the LVM guest, in one run.

Each pair runs in turn, so that a noisy machine is noisy for both.  Nothing is asserted: the
ratios are for people (and for the README).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import fixtures
from imgtools.config import Config
from tests.bench.copies import copies
from tests.bench.edits import bare, edit, prepare
from tests.bench.launches import compare
from tests.bench.measure import Measurement, measure

IMGTOOLS = str(Path(sys.executable).with_name("imgtools"))

# imgtools' words, the other tool's words; {} is the image.
PAIRS: list[tuple[list[str], list[str]]] = [
    (["inspect", "-a", "{}", "--xml"], ["virt-inspector", "-a", "{}"]),
    (["df", "-a", "{}"], ["virt-df", "-a", "{}"]),
    (["cat", "-a", "{}", "/etc/fstab"], ["virt-cat", "-a", "{}", "/etc/fstab"]),
    (["ls", "-a", "{}", "-lR", "/etc"], ["virt-ls", "-a", "{}", "-lR", "/etc"]),
    (
        ["filesystems", "-a", "{}", "--all", "--long"],
        ["virt-filesystems", "-a", "{}", "--all", "--long"],
    ),
]


def main() -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--image", default="debian-lvm", help="fixture to read")
    parser.add_argument("--runs", type=int, default=5, help="runs of imgtools (median is shown)")
    parser.add_argument("--launch-runs", type=int, default=3, help="launches of each appliance")
    parser.add_argument("--peer-runs", type=int, default=1, help="runs of the virt-* tool")
    parser.add_argument("--copy-runs", type=int, default=3, help="runs of each convert (4 GiB)")
    options = parser.parse_args()
    image = str(fixtures.get(options.image))
    print(f"{options.image}: wall time (median) and peak memory, imgtools against virt-*\n")
    print(f"{'command':<14}{'imgtools':>10}{'memory':>10}   {'virt-*':>10}{'memory':>10}  ratio")
    for ours, theirs in PAIRS:
        mine = _median([IMGTOOLS, *_fill(ours, image)], options.runs)
        peer = _median(_fill(theirs, image), options.peer_runs)
        _print(ours[0], mine, peer)
    if options.image == "debian-lvm":
        _edits(Path(image), options.runs, options.peer_runs)
        _sysprep(Path(image), options.runs, options.peer_runs)
    if options.copy_runs:
        # Of qemu-img, not of a virt-* tool; both are limited by the storage.
        _print("convert", *copies(options.copy_runs), decimals=2)
    compare(options.launch_runs)


def _sysprep(image: Path, runs: int, peer_runs: int) -> None:
    """The default operations of each, on fresh scratch overlays."""
    mine = prepare([IMGTOOLS, "sysprep"], image, runs, _environment())
    peer = prepare(["virt-sysprep"], image, peer_runs, _environment())
    _print("sysprep", mine, peer)


def _edits(image: Path, runs: int, peer_runs: int) -> None:
    """The same edit, each on a scratch overlay of its own."""
    mine = edit([IMGTOOLS, "edit"], image, runs, _environment())
    peer = edit(["virt-edit"], image, peer_runs, _environment())
    _print("edit -e", mine, peer)
    seconds = bare(image, runs)
    if seconds is not None:
        print(f"{'  bare write':<14}{seconds:>8.2f} s   (instant appliance, no transaction)")


def _print(name: str, mine: Measurement, peer: Measurement, *, decimals: int = 0) -> None:
    print(
        f"{name:<14}{mine.seconds:>8.2f} s{mine.peak / 2**20:>6.0f} MiB   "
        f"{peer.seconds:>8.2f} s{peer.peak / 2**20:>6.0f} MiB  "
        f"{peer.seconds / mine.seconds:>5.{decimals}f}x",
        flush=True,
    )


def _fill(words: list[str], image: str) -> list[str]:
    return [word.format(image) if word == "{}" else word for word in words]


def _median(argv: list[str], runs: int) -> Measurement:
    with tempfile.TemporaryFile() as sink:
        results = [measure(argv, env=_environment(), stdout=sink) for _ in range(runs)]
    return Measurement(
        seconds=statistics.median(result.seconds for result in results),
        peak=max(result.peak for result in results),
    )


def _environment() -> dict[str, str]:
    # The virt-* tools do not notice a KVM that does not work; without this they do not start.
    from imgtools.appliance.probe import kvm_works

    hypervisor = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"
    environment = {**os.environ, "LIBGUESTFS_BACKEND": "direct"}
    if not kvm_works(hypervisor, Config())[0].works:
        environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    return environment


if __name__ == "__main__":
    main()
