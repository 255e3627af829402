"""What package managers print: why they failed, and scripts of packages of which they only warn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from imgtools.errors import GuestOperationError
from imgtools.guest.customize import chroot
from imgtools.guest.writing import GuestFiles
from imgtools.model.engine import Ran

_REASON = re.compile(r"(?i)(e: |error\b|.*\bnot found\b|.*\bfailed\b(?!:$)|no provider )")
# In rpm's words, which dnf and yum pass on, and in libalpm's, also for hooks.  They end with 0
# then, while apt and zypper (107) do not.
_SCRIPT = re.compile(r"%\w+\([^()]*\) scriptlet failed|error: command failed to execute correctly")


def run_checked(guest: GuestFiles, script: bytes, *, what: str, hint: str | None = None) -> None:
    """Run a script with a package manager.

    Raises GuestOperationError if it failed, or if a script of a package did.
    """

    def failed(ran: Ran) -> bool:
        return ran.status != 0 or bool(_failed_script(ran))

    ran = chroot.run(guest, script, what=what, failed=failed)
    if line := _failed_script(ran):
        raise GuestOperationError(
            f"{what}: a script of a package failed: {line[:200]}",
            hint="if that does no harm: --run-command runs the package manager as you like",
        )
    chroot.checked(guest, ran, what=what, hint=hint, reason=reason)


def _failed_script(ran: Ran) -> str:
    return next((line for line in chroot.lines_of(ran) if _SCRIPT.search(line)), "")


def reason(lines: Sequence[str]) -> str:
    """The last line that speaks of an error; else the last one."""
    return next((line for line in reversed(lines) if _REASON.match(line)), chroot.last_line(lines))
