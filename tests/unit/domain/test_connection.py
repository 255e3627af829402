"""libvirt's URIs."""

from __future__ import annotations

import pytest

from imgtools.domain.connection import host_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", None),
        ("qemu+ssh://root@far.example:2222/system", "far.example"),
        ("qemu+tls://far/system", "far"),
        ("qemu://far/system", "far"),
        ("qemu+ssh://localhost/system", None),
        ("qemu+unix:///system?socket=/run/x", None),
        ("test:///default", None),
        ("not a uri", None),
        ("qemu://[bad/system", None),
    ],
)
def test_the_host_of_a_uri(uri: str, host: str | None) -> None:
    assert host_of(uri) == host
