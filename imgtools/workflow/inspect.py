"""What operating systems are on the disks."""

from __future__ import annotations

from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.inspection import Inspection
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.roots import no_guest
from imgtools.workflow.selection import DiskArguments, run_selected, select_one


def inspect(
    arguments: DiskArguments, *, applications: bool = True, icon: bool = True
) -> Outcome[list[Inspection]]:
    """Inspect the one guest (of one or several systems) that the user pointed at.

    Raises NoGuestError when its disks hold no operating system, and whatever selecting and
    opening the disks raises.
    """

    def task(session: Session) -> list[Inspection]:
        # On auto a refusal of the direct engine sends the whole task to the appliance.
        found = inspect_guests(
            session,
            applications=applications,
            icon=icon,
            tolerant=arguments.engine == "direct",
        )
        if not found:
            raise no_guest(session)
        return found

    return run_selected(task, select_one(arguments), arguments)
