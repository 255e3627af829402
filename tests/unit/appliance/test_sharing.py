"""Where links lead when a guest's root is a folder of this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.appliance.sharing import climbs
from imgtools.errors import MissingToolError
from imgtools.guest.steps import host

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({b"etc/a": b"../usr"}, False),
        ({b"etc/a": b"../.."}, True),
        ({b"a": b".."}, True),
        ({b"a": b"./b/../c"}, False),
        ({b"etc/a": b"/etc/b"}, False),
        ({b"etc/a": b"/.."}, True),
        # through other links, which may lie deeper or less deep than they look
        ({b"a/b/c/x": b"d/../../..", b"a/b/c/d": b"/usr/lib/deep"}, False),
        ({b"a/b/c/x": b"d/../..", b"a/b/c/d": b"/usr"}, True),
        ({b"a": b"b/..", b"b": b"/"}, True),
        ({b"x": b"a/../../b/..", b"a": b"c/d", b"b": b"."}, True),
        ({b"x": b"a/../b/..", b"a": b"c/d", b"b": b"."}, False),
        # round and round
        ({b"a": b"b/../..", b"b": b"a"}, False),
        ({b"a": b""}, False),
    ],
)
def test_links_that_climb(links: dict[bytes, bytes], expected: bool) -> None:
    climbing, steps = climbs(links, next(iter(links)))
    assert climbing is expected
    assert 0 < steps < 1000


def test_without_fuse_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "FUSE", tmp_path / "fuse")
    with pytest.raises(MissingToolError, match="fuse: no such file or directory; the guest's"):
        host.check_fuse()
