"""customize's passwords, keys, names and first boot on a real Debian, read by a fresh reader."""

from __future__ import annotations

import base64
import ctypes
import re
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import members, overlay_of, read, state
from tests.cli import imgtools

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]

BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()
KEY = f"ssh-ed25519 {BLOB} me@host"


@pytest.fixture
def lvm(image: Image, tmp_path: Path) -> Path:
    """A real Debian: ext4 root, XFS home on another logical volume."""
    (tmp_path / "disks").mkdir()
    return overlay_of(image("debian-lvm"), tmp_path / "disks/disk.qcow2")


def crypt(password: str, setting: str) -> str:
    """crypt(3) by another interface of libxcrypt than imgtools calls."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    found: bytes = library.crypt(password.encode(), setting.encode())
    return found.decode()


def below(image: Path, folder: str) -> dict[str, tarfile.TarInfo]:
    """Everything in a folder, by its path in it."""
    return {name.removeprefix("./"): one for name, one in members(image, folder).items()}


def shadow(image: Path) -> dict[str, list[str]]:
    lines = read(image, "/etc/shadow").decode().splitlines()
    return {line.partition(":")[0]: line.split(":") for line in lines}


def test_a_template_becomes_a_machine(lvm: Path, tmp_path: Path) -> None:
    secret, script, public = tmp_path / "secret", tmp_path / "set up.sh", tmp_path / "id.pub"
    secret.write_text("from a file\nnot this line\n")
    script.write_bytes(b"#!/bin/bash\necho set up \xff\n")
    public.write_text(f"{KEY}\n")
    before, tree = shadow(lvm), below(lvm, "/etc")
    words = (
        "--root-password", f"file:{secret}", "--password", "alice:locked:password:a:b",
        "--password", "bin:random", "--password-crypto", "sha256",
        "--ssh-inject", f"alice:file:{public}", "--ssh-inject", f"root:string:{KEY}",
        "--hostname", "web.example.org", "--timezone", "Pacific/Auckland",
        "--firstboot", script, "--firstboot-command", "echo second", "--firstboot-install", "a,b",
    )  # fmt: skip
    done = imgtools("customize", "-a", lvm, *words)
    assert done.code == 0, done.stderr
    told = re.search(r"^imgtools: random password of bin: (\S{21})$", done.stderr, re.MULTILINE)
    assert told
    output = done.stdout.decode()
    assert not [word for word in ("from a file", "a:b", told[1]) if word in output]

    after = shadow(lvm)
    passwords = {"root": "from a file", "alice": "a:b", "bin": told[1]}
    assert {n for n in before if before[n] != after[n]} == set(passwords)
    assert list(before) == list(after)
    for name, password in passwords.items():
        field = after[name][1]
        assert field.startswith("!") is (name == "alice")
        hashed = field.removeprefix("!")
        assert hashed.startswith("$5$")
        assert crypt(password, hashed) == hashed
        assert abs(int(after[name][2]) - time.time() // 86400) <= 1
        assert after[name][3:] == before[name][3:]

    assert read(lvm, "/etc/hostname") == b"web.example.org\n"
    assert b"127.0.1.1 web.example.org web\n" in read(lvm, "/etc/hosts")
    now = below(lvm, "/etc")
    assert now["localtime"].linkname == "../usr/share/zoneinfo/Pacific/Auckland"
    for name in "shadow", "hosts", "hostname":
        one, other = tree[name], now[name]
        assert (one.mode, one.uid, one.gid) == (other.mode, other.uid, other.gid)

    for home, uid in ("/home/alice", 1000), ("/root", 0):
        assert read(lvm, f"{home}/.ssh/authorized_keys").decode().splitlines()[-1] == KEY
        found = below(lvm, home)
        for name, mode in (".ssh", 0o700), (".ssh/authorized_keys", 0o600):
            assert (found[name].mode, found[name].uid, found[name].gid) == (mode, uid, uid)

    folder = below(lvm, "/usr/lib/imgtools-firstboot")
    names = ["0001-set-up.sh", "0002-echo-second", "0003-install-a-b"]
    assert sorted(name for name in folder if name.startswith("scripts/")) == [
        f"scripts/{name}" for name in names
    ]
    assert all(folder[f"scripts/{name}"].mode == 0o700 for name in names)
    where = "/usr/lib/imgtools-firstboot/scripts"
    assert read(lvm, f"{where}/{names[0]}") == script.read_bytes()
    assert read(lvm, f"{where}/{names[2]}").endswith(b" install a b\n")
    assert stat.S_IMODE(now["systemd/system/imgtools-firstboot.service"].mode) == 0o644
    link = now["systemd/system/multi-user.target.wants/imgtools-firstboot.service"]
    assert link.linkname == "/etc/systemd/system/imgtools-firstboot.service"

    # Once more, but for the random password, and nothing changes.
    unchanged = state(lvm)
    at = words.index("bin:random")
    done = imgtools("customize", "-a", lvm, *words[: at - 1], *words[at + 1 :])
    assert (done.code, done.stdout) == (0, b""), done.stderr
    assert "nothing to change" in done.stderr
    assert state(lvm) == unchanged


def test_what_fails_leaves_the_image_as_it_was(lvm: Path) -> None:
    before = state(lvm)
    done = imgtools(
        "customize", "-a", lvm, "--root-password", "random", "--hostname", "half",
        "--run-command", "rm -rf /home/alice/.ssh; ln -s /etc /home/alice/.ssh",
        "--ssh-inject", f"alice:string:{KEY}",
    )  # fmt: skip
    assert done.code == 6
    assert "leads out of the home, to /etc" in done.stderr
    assert state(lvm) == before


SETFILES = """#!/bin/sh
if [ "$(wc -l < /labelled)" -ge 3 ]; then
    echo no such policy
    exit 255
fi
echo "$@" >> /labelled
"""
MANAGER = """#!/bin/sh
read -r password
echo "$@" "[$password]" >> /registered
"""


def test_programs_of_the_guest_label_and_register(lvm: Path, tmp_path: Path) -> None:
    """Debian has neither program: scripts in their place show how they are called."""
    contexts = "/etc/selinux/targeted/contexts/files"
    for name, text in ("setfiles", SETFILES), ("subscription-manager", MANAGER):
        (tmp_path / name).write_text(text)
    (tmp_path / "pw").write_text("it's $HOME\n")
    prepare = [
        "--mkdir", contexts, "--write", f"{contexts}/file_contexts:/.* system_u:object_r:etc_t:s0",
        "--write", "/etc/selinux/config:SELINUX=enforcing", "--touch", "/.autorelabel",
        "--touch", "/labelled",
        "--upload", f"{tmp_path / 'setfiles'}:/usr/sbin/setfiles",
        "--chmod", "0755:/usr/sbin/setfiles",
        "--upload", f"{tmp_path / 'subscription-manager'}:/usr/sbin/subscription-manager",
        "--chmod", "0755:/usr/sbin/subscription-manager",
    ]  # fmt: skip
    words = [
        "--selinux-relabel", "--selinux-relabel",
        "--sm-register", "--sm-credentials", f"me:file:{tmp_path / 'pw'}",
        "--sm-attach", "pool:8a85", "--no-network", "--hostname", "labelled",
    ]  # fmt: skip
    done = imgtools("customize", "-v", "-a", lvm, *prepare, *words)
    assert done.code == 0, done.stderr
    assert "$HOME" not in done.stdout.decode() + done.stderr
    assert read(lvm, "/registered").decode().splitlines() == [
        "register --username=me [it's $HOME]",
        "attach --pool=8a85 []",
    ]
    labelled = read(lvm, "/labelled").decode().splitlines()
    assert [line.rpartition(" ")[2] for line in labelled] == ["/", "/boot", "/home"]
    assert all(f"-F -e /dev -e /proc -e /sys -e /run {contexts}" in line for line in labelled)
    # The second time it fails.
    removed, written = done.stdout.decode().splitlines()[-2:]
    assert removed == "removed /.autorelabel (not needed any more)"
    assert written == (
        "written /.autorelabel (the guest relabels at its next boot: "
        "setfiles ended with 255: no such policy)"
    )
    assert read(lvm, "/.autorelabel") == b""
