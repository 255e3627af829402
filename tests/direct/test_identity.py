"""identity: what clones of a real guest would share."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]

PLANTED = {
    "bin/true": "\n",
    "etc/fstab": "\n",
    "etc/os-release": "ID=debian\n",
    "etc/passwd": "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/srv/ann:/bin/sh\n",
    "etc/shadow": "root:!:1::::::\nann:$y$j9T$abcdefgh$ijklmnop:1::::::\n",
    "etc/machine-id": "uninitialized\n",
    "etc/ssh/ssh_host_rsa_key": "",
    "etc/netplan/50-net.yaml": "e:\n  eth0:\n    macaddress: '52:54:00:AA:bb:cc'\n",
    "etc/netplan/60-net.yaml": "e:\n  eth1:\n    match:\n      macaddress: 52:54:00:AA:bb:cd\n",
    "etc/systemd/network/a.network": "[Match]\nMACAddress=52:54:00:AA:bb:cd\n",
    "var/lib/snapd/state.json": '{"data":{"auth":{"device":{"brand":"generic"}}}}',
    "etc/iscsi/initiatorname.iscsi": "GenerateName=yes\n",
    "root/.bash_history": "ls\n",
    "srv/ann/.ssh/id_ed25519": "secret\n",
    "srv/ann/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
    "var/lib/systemd/random-seed": "x" * 512,
}


def plant(folder: Path, name: str, files: dict[str, str]) -> Path:
    root = folder / f"{name}.root"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    image = folder / f"{name}.img"
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", root, image], check=True)
    return image


def test_a_real_guest_that_was_used_is_not_safe(image: Image) -> None:
    disk = image("debian-lvm")
    done = imgtools("identity", disk, "--json")
    assert (done.code, done.stderr) == (10, "")
    (guest,) = json.loads(done.stdout)["result"]["guests"]
    assert guest["clone_safe"] is False
    found = {one["path"]: one for one in guest["identities"]}
    key = imgtools("cat", "-a", disk, "/etc/ssh/ssh_host_rsa_key").stdout
    assert found["/etc/ssh/ssh_host_rsa_key"] == {
        "kind": "ssh-host-key",
        "severity": "clash",
        "path": "/etc/ssh/ssh_host_rsa_key",
        "detail": "",
        "digest": hashlib.sha256(key).hexdigest(),
    }
    assert found["/etc/machine-id"]["severity"] == "clash"
    assert found["/home/alice/.ssh/authorized_keys"]["severity"] == "note"
    checked = imgtools("sysprep", "--check", "-a", disk)
    assert checked.code == 10
    assert "not safe to clone" in checked.stderr


def test_each_kind_is_found_and_what_is_unset_is_not(tmp_path: Path) -> None:
    disk = plant(tmp_path, "one", PLANTED)
    done = imgtools("identity", "--format", "raw", disk, "--json")
    assert done.code == 10
    (guest,) = json.loads(done.stdout)["result"]["guests"]
    found = {(one["severity"], one["kind"], one["path"]) for one in guest["identities"]}
    assert found == {
        ("clash", "mac-address", "/etc/netplan/50-net.yaml"),
        ("clash", "random-seed", "/var/lib/systemd/random-seed"),
        ("leak", "history", "/root/.bash_history"),
        ("leak", "mac-address", "/etc/netplan/60-net.yaml"),
        ("leak", "mac-address", "/etc/systemd/network/a.network"),
        ("leak", "user-key", "/srv/ann/.ssh/id_ed25519"),
        ("note", "authorized-keys", "/srv/ann/.ssh/authorized_keys"),
        ("note", "password", "/etc/shadow"),
    }


def test_a_prepared_guest_is_safe_and_two_share_what_is_equal(tmp_path: Path) -> None:
    clashing = ("etc/netplan/50-net.yaml", "var/lib/systemd/random-seed")
    clean = {path: text for path, text in PLANTED.items() if path not in clashing}
    one = plant(tmp_path, "one", clean)
    two = plant(tmp_path, "two", {**clean, "root/.bash_history": "other\n"})
    raw = ("--format", "raw")
    safe = imgtools("identity", *raw, one)
    assert safe.code == 0
    assert "safe to clone" in safe.stderr
    both = imgtools("identity", *raw, one, two)
    assert both.code == 0  # nothing that they share clashes
    kinds = {line.split()[1] for line in both.lines}
    assert kinds == {"user-key", "authorized-keys", "mac-address", "password"}
    three = plant(tmp_path, "three", PLANTED)
    four = plant(tmp_path, "four", PLANTED)
    clash = imgtools("identity", *raw, three, four, "--json")
    assert clash.code == 10
    shared = json.loads(clash.stdout)["result"]["shared"]
    assert shared[0] == {
        "kind": "mac-address",
        "severity": "clash",
        "places": [
            {"guest": "four.img", "path": "/etc/netplan/50-net.yaml"},
            {"guest": "three.img", "path": "/etc/netplan/50-net.yaml"},
        ][::-1],
    }


def test_a_bad_image_stops_no_other(image: Image, tmp_path: Path) -> None:
    done = imgtools("identity", image("debian-lvm"), tmp_path / "absent.img", "--json")
    assert done.code == 4
    assert "no such image file" in done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["result"]["guests"]] == [
        "debian-lvm.qcow2"
    ]
