"""The doctor of backing chains beside a real libvirtd: domains, their snapshots, pools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.libvirt.conftest import Define, virsh

pytestmark = pytest.mark.libvirt


def make(path: Path, *words: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words, path, "8M"], check=True)
    return path


def test_domains_and_their_snapshots_are_named(define: Define, tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2")
    domain = define("imgtools-chain", base)
    raw = tmp_path / "raw-disk"  # by its content and its name no image
    raw.write_bytes(b"guest" * 4096)
    define("imgtools-chain-raw", raw, "raw")
    virsh("snapshot-create-as", domain.name, "before", "--disk-only", "--no-metadata")
    (overlay,) = [path for path in tmp_path.iterdir() if path.name == "base.before"]
    virsh("snapshot-create-as", domain.name, "second", "--disk-only")
    done = imgtools("image", "chain", "--json", tmp_path)
    images = {Path(one["path"]).name: one for one in json.loads(done.stdout)["result"]["images"]}
    assert images["base.second"]["domains"] == [
        {"name": domain.name, "active": False, "snapshot": None}
    ]
    assert images["base.before"]["domains"] == [
        {"name": domain.name, "active": False, "snapshot": "second"}
    ]
    assert images["base.qcow2"]["domains"] == []
    assert images["base.second"]["depth"] == 2
    assert images["raw-disk"]["domains"][0]["name"] == "imgtools-chain-raw"
    assert f"domain {domain.name}" in imgtools("image", "chain", tmp_path).text
    assert overlay.exists()
    virsh("snapshot-delete", domain.name, "second", "--metadata")


def test_a_pool(libvirtd: str, tmp_path: Path) -> None:
    make(tmp_path / "child.qcow2", "-u", "-b", "gone.qcow2", "-F", "qcow2")
    virsh("pool-create-as", "imgtools-chain", "dir", "--target", str(tmp_path))
    try:
        done = imgtools("image", "chain", "--json", "--pool", "imgtools-chain")
        assert done.code == 10
        assert json.loads(done.stdout)["result"]["folder"] == str(tmp_path)
        done = imgtools("image", "chain", "-c", libvirtd, "--pool", "no-such-pool")
        assert (done.code, "no-such-pool" in done.stderr) == (1, True)
    finally:
        virsh("pool-destroy", "imgtools-chain")


def test_a_connection_that_was_named_must_answer(tmp_path: Path) -> None:
    assert imgtools("image", "chain", "-c", "nonsense://", tmp_path).code == 1
