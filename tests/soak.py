"""``make soak``: launch the instant appliance many times, alone and several at a time.

Every launch makes what a clone must not share (a filesystem's UUID, LVM's, a LUKS header, random
bytes, the machine-id) and nothing may come twice; no process, folder, descriptor or memory may be
left.  Fails with exit status 1 and says what was wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.appliance.ways import launched, qemu_processes, scratch

MIB = 1 << 20
IDENTITIES = """
cat /etc/machine-id /proc/sys/kernel/random/boot_id
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
mkfs.ext4 -q /dev/sda && blkid -o value -s UUID /dev/sda
lvm pvcreate -qq -f -y /dev/sdb && lvm pvs --noheadings -o pv_uuid /dev/sdb
printf key | cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/sdc -
cryptsetup luksUUID /dev/sdc
head -c 1M /dev/sdc | sha256sum | cut -d' ' -f1
mktemp -u; date +%s
"""
NAMES = ("machine-id", "boot-id", "random", "ext4", "lvm", "luks", "luks-header", "mktemp")


def one_launch(number: int, parent: Path) -> tuple[float, list[str]]:
    """Launch, make identities, end; the seconds to the end of the launch, and the identities."""
    folder = parent / str(number)
    folder.mkdir()
    begin = time.monotonic()
    with launched("instant", [scratch(folder, str(i), 64 * MIB) for i in range(3)], folder) as (
        handle,
        _,
    ):
        seconds = time.monotonic() - begin
        lines = [line.strip() for line in handle.debug("sh", [IDENTITIES]).splitlines()]
        lines = [line for line in lines if line]
        skew = abs(time.time() - int(lines.pop()))
    if len(lines) != len(NAMES) or skew > 5:
        raise AssertionError(f"launch {number}: {lines}, clock {skew:.0f} s off")
    subprocess.run(["rm", "-rf", folder], check=True)
    return seconds, lines


def leftovers(folder: Path) -> tuple[set[int], set[str], int]:
    """Processes of qemu that work in ``folder``, what lies there, and our own descriptors."""
    ours = set()
    for pid in qemu_processes():
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes():
                ours.add(pid)
    entries = {path.name for path in folder.iterdir() if path.name.startswith("libguestfs")}
    return ours, entries, len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def _temporary(folder: str) -> Iterator[None]:
    before = os.environ.get("LIBGUESTFS_TMPDIR")
    os.environ["LIBGUESTFS_TMPDIR"] = folder
    try:
        yield
    finally:
        os.environ.pop("LIBGUESTFS_TMPDIR")
        if before is not None:
            os.environ["LIBGUESTFS_TMPDIR"] = before


def soak(launches: int, together: int) -> list[str]:
    """Run ``launches`` one after the other, then as many ``together`` at a time; what was wrong."""
    seen: list[list[str]] = []
    times: list[float] = []
    faults: list[str] = []
    # A folder of our own, so that other users of libguestfs on this host do not count.
    with tempfile.TemporaryDirectory(prefix="imgtools-soak-") as name, _temporary(name):
        parent = Path(name)
        one_launch(-1, parent)  # what is loaded once does not count as a leak
        before, peak = leftovers(parent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(launches):
            seconds, identities = one_launch(number, parent)
            seen.append(identities)
            times.append(seconds)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        with ThreadPoolExecutor(together) as pool:
            jobs = [pool.submit(one_launch, launches + i, parent) for i in range(2 * together)]
            seen += [job.result()[1] for job in jobs]
        after = leftovers(parent)
    for kind, values in zip(NAMES, zip(*seen, strict=True), strict=True):
        twice = [value for value, count in collections.Counter(values).items() if count > 1]
        faults += [f"{kind}: {value} came more than once" for value in twice]
    faults += [f"qemu processes are left: {after[0] - before[0]}"] if after[0] - before[0] else []
    faults += [f"folders are left: {after[1] - before[1]}"] if after[1] - before[1] else []
    faults += [f"{after[2] - before[2]} descriptors are left"] if after[2] > before[2] else []
    if grown > 32 << 10:
        faults.append(f"memory grew by {grown >> 10} MiB over {launches} launches")
    times.sort()
    print(
        f"{launches} launches: median {times[len(times) // 2]:.2f} s, worst {times[-1]:.2f} s; "
        f"then {2 * together}, {together} at a time; memory grew by {grown} KiB"
    )
    return faults


def memory_bound(together: int) -> int:
    """How many appliances of 1280 MiB this host holds at the same time, at most ``together``."""
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_AVPHYS_PAGES")
    return max(1, min(together, page * pages // (1400 * MIB)))


def main() -> int:
    """Run the soak of the command line."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--launches", type=int, default=300)
    parser.add_argument("--together", type=int, default=4)
    options = parser.parse_args()
    faults = soak(options.launches, memory_bound(options.together))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
