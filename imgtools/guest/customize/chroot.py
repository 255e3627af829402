"""Run programs of the guest, in the appliance, with the guest's files as their root.

`run` is what steps call.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgtools.errors import GuestOperationError
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended: its exit status (128 + N after a signal), and the end of its output."""

    status: int
    output: bytes


def run(guest: GuestFiles, script: bytes, *, what: str) -> Ran:
    """Run a shell script by the guest's /bin/sh as root, all filesystems mounted, /proc, /sys,
    /dev; stdout and stderr are one.  ``what`` names it in messages.

    Raises GuestOperationError if the guest's programs cannot run here (another architecture, no
    shell); a status that is not 0 is the caller's business.
    """
    del guest, script
    raise GuestOperationError(f"{what}: not yet")


def run_checked(guest: GuestFiles, script: bytes, *, what: str) -> bytes:
    """`run`, but a status that is not 0 raises GuestOperationError with the end of the output."""
    ran = run(guest, script, what=what)
    if ran.status != 0:
        raise GuestOperationError(f"{what}: exit status {ran.status}")
    return ran.output
