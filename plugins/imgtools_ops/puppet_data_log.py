"""What Puppet knows of this machine."""

from __future__ import annotations

from imgtools.api import Operation, remove_paths

FOLDERS = (
    "/var/lib/puppet",
    "/var/log/puppet",
    # Puppet 4 and later
    "/etc/puppetlabs/puppet/ssl",
    "/opt/puppetlabs/puppet/cache",
    "/var/log/puppetlabs",
)

operation = Operation(
    name="puppet-data-log",
    heading="Remove the certificates, data and logs of Puppet",
    description="The agent's key and certificate, its catalogue, facts, reports and logs. On a "
    "Puppet server that is the certificate authority, too.",
    plan=lambda guest, _: remove_paths(guest, (path for path, _ in guest.files_below(*FOLDERS))),
)
