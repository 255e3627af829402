"""What apt knows of its repositories."""

from __future__ import annotations

from imgtools.api import Guest, Operation, remove_paths

LISTS = "/var/lib/apt/lists"


def _files(guest: Guest) -> list[bytes]:
    return [path for path, _ in guest.files_below(LISTS) if not path.endswith(b"/lock")]


operation = Operation(
    name="apt-lists",
    heading="Remove apt's lists of packages",
    description="They are old when a clone starts; apt update fetches them again.",
    order=95,  # after customize: also what its programs make
    plan=lambda guest, _: remove_paths(guest, _files(guest)),
)
