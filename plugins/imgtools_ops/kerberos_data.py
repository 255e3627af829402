"""The database of a Kerberos server (KDC)."""

from __future__ import annotations

from collections.abc import Iterator

from imgtools.api import Guest, Operation, remove_paths

# Red Hat's folder, and Debian's, whose configuration is in another one with the master key.
PATTERNS = ("/var/kerberos/krb5kdc/*", "/var/lib/krb5kdc/*", "/etc/krb5kdc/stash")
CONFIGURATION = (b"kadm5.acl", b"kdc.conf")


def _files(guest: Guest) -> Iterator[bytes]:
    for path in guest.glob(*PATTERNS):
        if path.rpartition(b"/")[2] not in CONFIGURATION and not guest.tree.is_dir(path):
            yield path


operation = Operation(
    name="kerberos-data",
    heading="Remove the data of a Kerberos server",
    description="The principals and master keys of a KDC; its configuration (kadm5.acl, kdc.conf) "
    "stays. Off by default: nobody can log in to the realm without them.",
    default=False,
    plan=lambda guest, _: remove_paths(guest, _files(guest)),
)
