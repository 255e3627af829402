"""Membership of an IPA domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_files
from imgtools_ops._ca_store import refresh

PATTERNS = (
    "/etc/ipa/ca.crt",
    "/etc/ipa/default.conf",
    "/etc/ipa/nssdb/*",
    "/var/lib/ipa-client/sysrestore/*",
    "/var/lib/ipa-client/pki/*",
)
TRUSTED = (
    "/etc/pki/ca-trust/source/anchors/ipa-ca.crt",
    "/etc/pki/ca-trust/source/ipa.p11-kit",
    "/usr/local/share/ca-certificates/ipa-ca.crt",
)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove_files(guest, *PATTERNS)
    trusted = list(remove_files(guest, *TRUSTED))
    yield from trusted
    if trusted:
        yield from refresh(guest)


operation = Operation(
    name="ipa-client",
    heading="Remove the membership of an IPA domain",
    description="Configuration, certificates and the saved state of ipa-client-install, which is "
    "not run: the server still knows the machine. The guest's store of trusted authorities is made "
    "anew without the domain's certificate.",
    plan=_plan,
)
