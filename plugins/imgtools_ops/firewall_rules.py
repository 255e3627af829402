"""Rules of iptables and firewalld."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

operation = Operation(
    name="firewall-rules",
    heading="Remove the firewall rules",
    description="Saved rules of iptables, and the zones and services of firewalld that were made "
    "on this machine. Off by default: a clone without them may be open to attack.",
    plan=lambda guest, _: remove_files(
        guest,
        "/etc/sysconfig/iptables",
        "/etc/sysconfig/ip6tables",
        "/etc/iptables/rules.v[46]",
        "/etc/firewalld/services/*",
        "/etc/firewalld/zones/*",
    ),
    default=False,
)
