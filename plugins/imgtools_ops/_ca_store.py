"""The store of trusted authorities, which a program makes of single files."""

from __future__ import annotations

from collections.abc import Iterator

from imgtools.api import Action, Guest, GuestOperationError, run_command

# Of p11-kit (Red Hat, Arch), Debian, SUSE and Alpine.
PROGRAMS = (
    "/usr/bin/update-ca-trust",
    "/usr/sbin/update-ca-certificates",
    "/usr/bin/update-ca-certificates",
)


def refresh(guest: Guest) -> Iterator[Action]:
    """Have the guest make its store anew, once all before it is done."""
    program = next((one for one in PROGRAMS if guest.tree.is_file(one.encode())), None)
    if program is None:
        return
    try:
        yield from run_command(guest, program)
    except GuestOperationError as error:
        guest.warn(
            f"{error.message}; the store of trusted authorities has what was removed until "
            f"{program} runs in the guest"
        )
