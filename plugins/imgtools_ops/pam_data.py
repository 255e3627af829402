"""What PAM modules keep about logins."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

operation = Operation(
    name="pam-data",
    heading="Remove the data of PAM modules",
    description="Failed logins (faillock), console owners and locks of pam_sepermit, where /run "
    "is on the disk.",
    plan=lambda guest, _: remove_files(
        guest,
        "/run/console/*",
        "/run/faillock/*",
        "/run/sepermit/*",
        "/var/run/console/*",
        "/var/run/faillock/*",
        "/var/run/sepermit/*",
        "/var/lib/faillock/*",
    ),
)
