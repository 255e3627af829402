"""Certificates and keys below /etc/pki."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_paths
from imgtools_ops._ca_store import refresh

PATTERNS = (
    "/etc/pki/CA/certs/*.crt",
    "/etc/pki/CA/crl/*.crt",
    "/etc/pki/CA/newcerts/*.crt",
    "/etc/pki/CA/private/*.key",
    "/etc/pki/tls/private/*.key",
    "/etc/pki/tls/certs/*.crt",
)
BUNDLES = (b"/etc/pki/tls/certs/ca-bundle.crt", b"/etc/pki/tls/certs/ca-bundle.trust.crt")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    files = [path for path in guest.glob(*PATTERNS) if path not in BUNDLES]
    yield from remove_paths(guest, files)
    if files:
        yield from refresh(guest)


operation = Operation(
    name="ca-certificates",
    heading="Remove certificates and keys below /etc/pki",
    description="The certificates and keys of this machine's own certificate authority and TLS "
    "servers; the bundle of public authorities is made anew. Off by default: servers that use them "
    "do not start.",
    default=False,
    plan=_plan,
)
