"""Certificates and keys below /etc/pki."""

from __future__ import annotations

from collections.abc import Iterator

from imgtools.api import Guest, Operation, remove_paths

PATTERNS = (
    "/etc/pki/CA/certs/*.crt",
    "/etc/pki/CA/crl/*.crt",
    "/etc/pki/CA/newcerts/*.crt",
    "/etc/pki/CA/private/*.key",
    "/etc/pki/tls/private/*.key",
    "/etc/pki/tls/certs/*.crt",
)
BUNDLES = (b"/etc/pki/tls/certs/ca-bundle.crt", b"/etc/pki/tls/certs/ca-bundle.trust.crt")


def _files(guest: Guest) -> Iterator[bytes]:
    return (path for path in guest.glob(*PATTERNS) if path not in BUNDLES)


operation = Operation(
    name="ca-certificates",
    heading="Remove certificates and keys below /etc/pki",
    description="The certificates and keys of this machine's own certificate authority and TLS "
    "servers; the bundle of public authorities stays. Off by default: servers that use them "
    "do not start.",
    default=False,
    plan=lambda guest, _: remove_paths(guest, _files(guest)),
)
