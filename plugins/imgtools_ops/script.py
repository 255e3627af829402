"""Scripts of this host that change the guest's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, Option, UsageError, run_on_host

SCRIPT = "script"
FOLDER = "scriptdir"


def _plan(_: Guest, values: Mapping[str, Any]) -> Iterator[Action]:
    scripts = values.get(SCRIPT) or ()
    if values.get(FOLDER) and not scripts:
        raise UsageError(f"--{FOLDER}: there is no --{SCRIPT} to run")
    yield from run_on_host(scripts, values.get(FOLDER))


operation = Operation(
    name="script",
    heading="Run scripts of this host on the guest's files",
    description="Each --script runs on this host, as the user who runs imgtools, in a folder where "
    "the guest's files are mounted (by FUSE): etc/fstab is the guest's, /etc/fstab the host's. "
    "Absolute links of the guest lead to files of the guest, its programs cannot be started. "
    "Nothing without --script. Late, on the guest as the other operations leave it.",
    # After all but what makes the machine a new one.
    order=90,
    options=(
        Option(
            name=SCRIPT,
            metavar="PROGRAM",
            multiple=True,
            help="script: run this program of the host in the guest's root folder.",
        ),
        Option(
            name=FOLDER,
            metavar="FOLDER",
            help="script: where to mount the guest, an empty folder; else a temporary one.",
        ),
    ),
    plan=_plan,
)
