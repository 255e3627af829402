"""What operations see of a guest, and the helpers that make actions."""

from __future__ import annotations

import pytest

from imgtools.api import Guest, link, remove, remove_files, rewrite
from tests.unit.plugins.guests import make_tree

pytestmark = pytest.mark.unit

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
www:x:33:33::/var/www/:/bin/sh
gone:x:1000:1000::/home/gone:/bin/sh
bad line
all:x:1001:1001::/:/bin/sh
"""


def guest(files: dict[str, object], **mounts: dict[str, object]) -> Guest:
    return Guest(
        make_tree(files, {f"/{name.replace('_', '/')}": one for name, one in mounts.items()})
    )


def test_homes_are_those_of_passwd_and_the_folders_of_home() -> None:
    found = guest({
        "etc/passwd": PASSWD, "root/.x": b"", "var/www/.x": b"", "home/ldap/.x": b"",
        "home/file": b"", "srv/.x": b"",
    })  # fmt: skip
    assert [(home.name, home.path) for home in found.homes()] == [
        ("root", b"/root"), ("www", b"/var/www"),
    ]  # fmt: skip
    assert list(found.in_homes(".x")) == [b"/root/.x", b"/var/www/.x", b"/home/ldap/.x"]


def test_links_that_lead_nowhere_are_no_folders() -> None:
    found = guest({"loop": "loop", "dangling": "/nowhere", "file": b"", "log/a": b"", "to": "/log"})
    for name in "loop", "dangling", "file":
        assert list(found.glob(f"/{name}/*", f"/{name}/x")) == []
        assert list(found.files_below(f"/{name}")) == []
    assert [path for path, _ in found.files_below("/to")] == [b"/log/a"]
    assert list(found.glob("/to/*")) == [b"/to/a"]


def test_all_files_below_but_no_folders() -> None:
    found = guest({"log/a/b/c": b"", "log/a/l": "/etc", "log/empty": {}})
    assert [path for path, _ in found.files_below("/log")] == [b"/log/a/b/c", b"/log/a/l"]
    assert [one.path for one in remove_files(found, "/log/a/*")] == [b"/log/a/l"]


def test_of_a_folder_with_a_mount_below_what_can_be_removed_is() -> None:
    found = guest(
        {"var/cache/x/file": b"", "var/cache/x/mnt": {}}, var_cache_x_mnt={"inner": b"", "d/e": b""}
    )
    assert [one.path for one in remove(found, "/var/cache/*")] == [
        b"/var/cache/x/file", b"/var/cache/x/mnt/d", b"/var/cache/x/mnt/inner",
    ]  # fmt: skip


def test_nothing_is_planned_for_what_is_so_already() -> None:
    found = guest({"etc/a": b"x\n", "etc/l": "/etc/a"})
    assert list(rewrite(found, "/etc/a", lambda text: text)) == []
    assert list(rewrite(found, "/etc/none", lambda _: b"new")) == []
    assert list(link(found, "/etc/a", "/etc/l")) == []
    assert [one.path for one in link(found, "/etc/b", "/etc/l")] == [b"/etc/l"]
    assert [one.path for one in link(found, "/etc/a", "/new/deep/l")] == [
        b"/new/deep",
        b"/new/deep/l",
    ]
