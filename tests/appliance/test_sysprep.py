"""sysprep on a real guest: what a dry run says is done, in one launch, all or nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import Launches
from tests.appliance.small import digest
from tests.cli import imgtools

pytestmark = pytest.mark.appliance

PLUGIN = """
from imgtools.api import Operation, remove, write
def plan(guest, options):
    yield from remove(guest, "/etc/hostname")
    {body}
operation = Operation(name="broken", heading="x", plan=plan, order=50)
"""


@pytest.fixture
def disk(image: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "guest.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image("debian-lvm")]
    subprocess.run([*words, path], check=True)
    return path


def plugin(folder: Path, body: str) -> dict[str, str]:
    """The environment in which a distribution with one more operation is installed."""
    info = folder / "plugin" / "imgtools_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: imgtools-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[imgtools.sysprep]\nbroken = imgtools_broken:operation\n"
    )
    (folder / "plugin" / "imgtools_broken.py").write_text(PLUGIN.format(body=body))
    paths = [str(folder / "plugin"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def test_what_the_dry_run_says_is_done_and_then_nothing_is_left(disk: Path, tmp_path: Path) -> None:
    before = digest(disk)
    launches = Launches(tmp_path)
    dry = imgtools("sysprep", "-n", "--json", "-a", disk, **launches.environment)
    assert (dry.code, launches.count(), digest(disk)) == (0, 0, before)
    record = tmp_path / "record.json"
    real = imgtools("sysprep", "--json", "-a", disk, "--report", record, **launches.environment)
    assert (real.code, launches.count()) == (0, 1)
    said, done = json.loads(dry.stdout)["result"], json.loads(real.stdout)["result"]
    assert (said["committed"], done["committed"]) == (False, True)
    assert said["operations"] == done["operations"]
    assert json.loads(record.read_text(encoding="utf-8")) == done
    paths = [action["path"] for one in done["operations"] for action in one["actions"]]
    assert "/etc/ssh/ssh_host_rsa_key" in paths
    assert len(paths) == len(set(paths))
    for one in done["operations"]:
        for action in one["actions"]:
            if action["verb"] == "removed":
                assert imgtools("ls", "-a", disk, action["path"]).code == 6, action["path"]
    assert imgtools("cat", "-a", disk, "/etc/machine-id").stdout == b"uninitialized\n"
    assert imgtools("sysprep", "--check", "-a", disk).code == 0
    again = imgtools("sysprep", "-a", disk)
    assert again.code == 0
    assert "nothing to do" in again.stderr
    # a guest that is refused keeps its report's name free
    refused = imgtools("sysprep", "-a", disk, "--report", record)
    assert refused.code == 8
    assert "exists already" in refused.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('oops')", "operation broken failed: KeyError: 'oops'"),
        ("yield 3", "operation broken failed: AttributeError"),
        (
            "yield from write(guest, '/boot/fill', bytes(400 << 20))",
            "operation broken: /boot/fill: no space left",
        ),
        ("yield from write(guest, '/etc/passwd/x', b'')", "operation broken: "),
    ],
)
def test_a_failing_operation_leaves_the_image_as_it_was(
    body: str, said: str, disk: Path, tmp_path: Path
) -> None:
    before = digest(disk)
    environment = plugin(tmp_path, body)
    listed = json.loads(imgtools("plugins", "--json", **environment).stdout)["result"]
    assert {"name": "broken", "heading": "x", "origin": "imgtools-broken 1.0"} in listed[
        "operations"
    ]
    record = tmp_path / "record.json"
    done = imgtools("sysprep", "-a", disk, "--report", record, **environment)
    assert done.code == 6, done
    assert said in done.stderr
    assert "as it was" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert digest(disk) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest.qcow2", "plugin"]
    # without it the rest runs
    rest = imgtools("sysprep", "-n", "-a", disk, "--operations", "-broken", **environment)
    assert rest.code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--operations", "ssh-hostkey"], 2, "did you mean ssh-hostkeys"),
        (["--enable", "machine-id", "--operations", "all"], 2, "cannot be used together"),
        (["--enable", "machine-id", "--remove-user-accounts", "bob"], 2, "user-account is not"),
        (["more"], 2, "what is more?"),
        (["--report", "/nonexistent/x"], 1, "cannot be written"),
    ],
)
def test_a_bad_command_line_is_one_line(words: list[str], code: int, said: str, disk: Path) -> None:
    before = digest(disk)
    done = imgtools("sysprep", "-a", disk, *words)
    assert (done.code, len(done.stderr.strip().splitlines())) == (code, 1), done
    assert said in done.stderr
    assert digest(disk) == before
