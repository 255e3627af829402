"""The package alone, in a clean venv: no bindings, no dissect, as on a machine just met."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.install

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a venv that holds imgtools and what pip brings with it, nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True, system_site_packages=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT],
        check=True,
        timeout=600,
    )
    return folder / "bin"


def _run(clean: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "IMGTOOLS_"))}
    return subprocess.run(
        [clean / "imgtools", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env=environ,
    )


def test_no_binding_is_there(clean: Path) -> None:
    for module in ("guestfs", "hivex", "libvirt", "dissect.hypervisor"):
        done = subprocess.run(
            [clean / "python", "-c", f"import {module}"], capture_output=True, check=False
        )
        assert done.returncode != 0, module


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["df", "--help"]])
def test_help_and_version_work(clean: Path, words: list[str]) -> None:
    done = _run(clean, *words)
    assert done.returncode == 0, done.stderr
    assert "imgtools" in done.stdout


def test_help_imports_nothing_heavy(clean: Path) -> None:
    done = subprocess.run(
        [clean / "python", "-X", "importtime", "-m", "imgtools.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"guestfs", "libvirt", "hivex", "dissect", "lxml", "lxml.etree", "rich", "sqlite3"}
    assert "imgtools.cli.options" in loaded
    assert not loaded & heavy


def test_a_missing_binding_is_one_line_with_the_cure(clean: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    done = _run(clean, "inspect", "-a", image)
    assert done.returncode == 7
    assert "python3-guestfs" in done.stderr
    assert "Traceback" not in done.stderr
    asked = _run(clean, "inspect", "-a", image, "--engine", "direct", "--json")
    assert asked.returncode == 7
    error = json.loads(asked.stderr)["error"]
    assert error["code"] == "missing.binding"
    assert "imgtools[direct]" in error["hint"]


def test_what_needs_no_library_is_read_without_one(clean: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-L", "plain", image], check=True)
    done = _run(clean, "filesystems", "--format", "raw", "-a", image, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["engine"] == "direct"
    assert [(row["vfs_type"], row["label"]) for row in document["result"]] == [("ext4", "plain")]


def test_the_wheel_carries_the_guest_s_helper(clean: Path) -> None:
    code = "import imgtools.appliance.instant.template as t; print(t.sources_digest())"
    done = subprocess.run(
        [clean / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert len(done.stdout.strip()) == 64


def test_the_wheel_carries_the_operations(clean: Path) -> None:
    code = "import imgtools_ops, importlib.metadata as m; print(m.version('imgtools'))"
    done = subprocess.run(
        [clean / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip()
    assert sys.version_info >= (3, 11)


def test_a_third_party_s_operation_is_found_and_runs(clean: Path, tmp_path: Path) -> None:
    dist = tmp_path / "imgtools-example"
    made = _run(clean, "plugins", "new", "remove-example", "--folder", dist)
    assert made.returncode == 0, made.stderr
    subprocess.run(
        [clean / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", dist],
        check=True,
        timeout=600,
    )
    try:
        listed = json.loads(_run(clean, "plugins", "--json").stdout)["result"]
        origins = {one["name"]: one["origin"] for one in listed["operations"]}
        assert origins["remove-example"] == "imgtools-remove-example 0.1.0"
        assert listed["failures"] == []
        guest = tmp_path / "guest"
        for name in ("etc/os-release", "var/lib/example/id", "var/log/example/a", "var/log/other"):
            (guest / name).parent.mkdir(parents=True, exist_ok=True)
            (guest / name).write_text("ID=debian\n", encoding="utf-8")
        image = tmp_path / "disk.img"
        image.touch()
        os.truncate(image, 16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-d", guest, image], check=True)
        words = ("--format", "raw", "-a", image, "-m", "/dev/sda", "--enable", "remove-example")
        done = _run(clean, "sysprep", "-n", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "remove-example:",
            "  removed /var/lib/example/id",
            "  removed /var/log/example/a",
        ]
    finally:
        subprocess.run(
            [clean / "python", "-m", "pip", "uninstall", "-q", "-y", "imgtools-remove-example"],
            check=True,
        )
