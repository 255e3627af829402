"""Membership of an IPA domain."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

PATTERNS = (
    "/etc/ipa/ca.crt",
    "/etc/ipa/default.conf",
    "/etc/ipa/nssdb/*",
    "/var/lib/ipa-client/sysrestore/*",
    "/var/lib/ipa-client/pki/*",
    "/etc/pki/ca-trust/source/anchors/ipa-ca.crt",
    "/etc/pki/ca-trust/source/ipa.p11-kit",
    "/usr/local/share/ca-certificates/ipa-ca.crt",
)

operation = Operation(
    name="ipa-client",
    heading="Remove the membership of an IPA domain",
    description="Configuration, certificates and the saved state of ipa-client-install, which is "
    "not run: the server still knows the machine. The store of trusted authorities has the "
    "domain's certificate until update-ca-trust or update-ca-certificates runs in the guest.",
    plan=lambda guest, _: remove_files(guest, *PATTERNS),
)
