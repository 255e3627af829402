"""Guests that lie: damage costs the field it hits, with a warning, in bounded time and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fixtures

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]
IMGTOOLS = Path(sys.executable).with_name("imgtools")
MEMORY = 1 << 30
SECONDS = 60


def run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """imgtools on the direct engine, with bounded address space and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    done = subprocess.run(
        [IMGTOOLS, *words],
        capture_output=True,
        check=False,
        timeout=SECONDS,
        preexec_fn=limit,
        env={**os.environ, "IMGTOOLS_ENGINE": "direct"},
    )
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    return done


def inspected(image: Path) -> tuple[dict[str, Any], set[str]]:
    """The one guest found, and the codes of the warnings."""
    done = run("inspect", "--json", "-a", image)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (guest,) = document["result"]
    return guest, {warning["code"] for warning in document["warnings"]}


# Direct leaves the bad GPT to the appliance (its own test below).
HOSTILE = [name for name in fixtures.tagged("hostile", "guest") if name != "hostile-gpt-crc"]


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_guest_is_still_a_guest(image: Image, name: str) -> None:
    guest, _ = inspected(image(name))
    assert guest["type"] == "linux"
    assert guest["root"]
    for command in (["df"], ["filesystems", "--all"], ["ls", "-l"]):
        words = [*command, "-a", image(name)] + (["/etc"] if command[0] == "ls" else [])
        begin = time.monotonic()
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - begin < SECONDS / 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_table_holds_no_control_characters(image: Image, name: str) -> None:
    done = run("inspect", "-a", image(name))
    text = (done.stdout + done.stderr).decode()
    assert not {c for c in text if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) < 0xA0}


def test_an_os_release_of_50_mib(image: Image) -> None:
    guest, warnings = inspected(image("hostile-big-os-release"))
    assert guest["distro"] == "debian"  # told by debian_version instead
    assert "inspect.distro" in warnings


def test_an_os_release_that_is_a_directory(image: Image) -> None:
    guest, warnings = inspected(image("hostile-os-release-folder"))
    assert guest["distro"] == "debian"
    assert "inspect.distro" in warnings


def test_a_version_of_twelve_x(image: Image) -> None:
    guest, warnings = inspected(image("hostile-version-id"))
    assert guest["distro"]
    assert guest["applications"]
    assert warnings


def test_a_looped_debian_version(image: Image) -> None:
    guest, warnings = inspected(image("hostile-debian-version-loop"))
    assert guest["distro"] == "debian"
    assert warnings


def test_a_garbage_fstab_costs_only_its_bad_lines(image: Image) -> None:
    guest, _ = inspected(image("hostile-fstab"))
    assert "/" in {mount["path"] for mount in guest["mountpoints"]}
    assert guest["distro"]


def test_a_broken_package_database_gives_its_good_records(image: Image) -> None:
    guest, _ = inspected(image("hostile-dpkg-status"))
    assert guest["applications"]


def test_a_million_packages(image: Image) -> None:
    guest, warnings = inspected(image("hostile-million-packages"))
    assert len(guest["applications"]) == 50_000  # the bound; the warning says that there are more
    assert "inspect.applications" in warnings


def test_a_hostname_with_escapes_keeps_its_bytes(image: Image) -> None:
    guest, _ = inspected(image("hostile-hostname"))
    assert "\\x" in guest["hostname"]
    assert guest["hostname_base64"]


def test_links_never_leave_the_guest(image: Image) -> None:
    path = image("hostile-escapes")
    host = Path("/etc/passwd").read_bytes()
    own = run("cat", "-a", path, "/etc/passwd")
    assert own.returncode == 0
    assert own.stdout != host
    listing = json.loads(run("ls", "--json", "-lR", "-a", path, "/").stdout)
    links = [entry["name"] for entry in listing["result"] if entry["type"] == "l"]
    assert len(links) >= 3
    answers = [run("cat", "-a", path, link) for link in links]
    assert {done.returncode for done in answers} <= {0, 6}
    assert not [done for done in answers if done.stdout and host in done.stdout]
    assert own.stdout in [done.stdout for done in answers], "no link led to the guest's own file"


def test_a_gpt_with_a_bad_checksum(image: Image) -> None:
    done = run("filesystems", "-a", image("hostile-gpt-crc"))
    assert done.returncode == 4
    assert b"GPT header with a wrong checksum" in done.stderr
