"""Disks that a web server or an ssh server shows: read by every verb that only reads."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.image.disks import SIZE, digest, make_disk, qemu_img, same
from tests.direct.image.webserver import web_server

pytestmark = pytest.mark.direct

MODULES = Path("/usr/lib/x86_64-linux-gnu/qemu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    disk = make_disk(folder)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, folder / "disk.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", folder / "overlay.qcow2")
    data = f"data_file={folder / 'data'},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", data, folder / "outside.qcow2", "1M")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", disk, folder / "disk.vmdk")
    shutil.copyfile(folder / "overlay.qcow2", folder / "posing.img")
    shutil.copyfile(disk, folder / "a b,c=d.img")
    (folder / "short.qcow2").write_bytes(b"QFI\xfb")
    (folder / "empty.img").touch()
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with web_server(folder) as url:
        yield url


def read_by_all(uri: str, disk: Path, image_format: str, target: Path) -> None:
    """Every verb that reads takes ``uri`` for ``disk``."""
    done = imgtools("convert", "-O", "vdi", "--verify", uri, target)
    assert (done.code, done.stderr) == (0, "")
    assert same(target, "vdi", disk, "raw")
    done = imgtools("image", "compare", uri, "-F", "raw", disk)
    assert (done.code, done.text, done.stderr) == (0, "the same\n", "")
    done = imgtools("image", "map", "--json", uri)
    assert sum(one["length"] for one in json.loads(done.text)["result"]["extents"]) == SIZE
    assert uri in imgtools("image", "map", uri).text
    done = imgtools("image", "measure", "--json", "-O", "raw", uri)
    assert json.loads(done.text)["result"]["required"] == SIZE
    done = imgtools("image", "read", uri, str(SIZE - 1000), "1000")
    assert (done.stdout, done.stderr) == (disk.read_bytes()[-1000:], "")
    done = imgtools("info", "--json", uri)
    (found,) = json.loads(done.text)["result"]
    assert (found["remote"], found["format"], found["virtual_size"]) == (True, image_format, SIZE)
    assert found["error"] is None
    assert f"({SIZE} bytes)" in imgtools("image", "info", uri).text


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_web_server(folder: Path, url: str, image_format: str, tmp_path: Path) -> None:
    name = "a%20b,c=d.img" if image_format == "raw" else "disk.qcow2"
    read_by_all(f"{url}/{name}", folder / "disk.img", image_format, tmp_path / "copy.vdi")


def one_line(*words: str | Path, code: int, says: str) -> None:
    done = imgtools(*words)
    assert (done.code, done.stderr.count("\n")) == (code, 1), done.stderr
    assert says in done.stderr, done.stderr
    assert "json:" not in done.stderr
    assert "qemu-img: " not in done.stderr


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("overlay.qcow2", 8, "may not name a backing or data file"),
        ("outside.qcow2", 8, "may not name a backing or data file"),
        ("none.qcow2", 4, "404 -- check the name"),
        ("none.img", 4, "404 -- check the name"),
        ("disk.vmdk", 4, "copy the image here first"),
        ("short.qcow2", 4, "may be damaged"),
        ("disk.img?x.qcow2#.qcow2", 4, "404"),
        ("empty.img", 4, "is empty"),
        ("a b", 2, "written as %XX"),
    ],
)
def test_what_cannot_be_read(url: str, tmp_path: Path, name: str, code: int, says: str) -> None:
    uri = f"{url}/{name}" if "?" not in name else f"{url}/no/{name}"
    for words in (["info"], ["image", "map"], ["convert", "-O", "raw"]):
        target = [tmp_path / "no"] if words[0] == "convert" else []
        one_line(*words, uri, *target, code=code, says=says)
    assert list(tmp_path.iterdir()) == []


def test_a_raw_disk_that_poses_as_an_overlay(folder: Path, url: str, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert imgtools("convert", "-O", "raw", f"{url}/posing.img", target).code == 0
    assert target.read_bytes().startswith((folder / "posing.img").read_bytes())


def test_a_server_that_is_not_trusted_shows_raw_disks_only(url: str, tmp_path: Path) -> None:
    """It could show another header when qemu asks for it."""
    for words in (["info"], ["image", "map"], ["df"]):
        uri = f"{url}/disk.qcow2"
        one_line(*words, "--untrusted", uri, code=8, says="copy the image here first")
    argv: list[str | Path] = ["convert", "--untrusted", "-O", "raw", f"{url}/disk.img"]
    done = imgtools(*argv, tmp_path / "copy")
    assert (done.code, done.stderr) == (0, "")
    # More than one request at once hangs the driver of qemu 7.2.
    for _ in range(3):
        assert imgtools(*argv, "-m", "16", "--force", tmp_path / "copy").code == 0


def test_servers_that_do_not_answer_as_they_should(folder: Path) -> None:
    with web_server(folder, ranges=False) as url:
        for name in ("disk.img", "disk.qcow2"):
            one_line("image", "map", f"{url}/{name}", code=4, says="copy the image here first")
        tls = url.replace("http", "https")
        one_line("image", "map", f"{tls}/disk.img", code=4, says="TLS")
    for name in ("disk.img", "disk.qcow2"):  # nobody listens any more
        one_line("info", f"{url}/{name}", code=4, says="is the server running")
    secret = url.replace("//", "//me:hidden@")
    for words in (["info"], ["info", "--json"], ["image", "map"]):
        done = imgtools(*words, f"{secret}/disk.img")
        assert done.code == 4
        assert "hidden" not in done.stderr + done.text
    for bad in ("http:///disk.img", "http://127.0.0.1:x/disk.img"):
        one_line("image", "map", bad, code=2, says=bad)


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/disk.img"
        one_line("convert", "-O", "raw", uri, tmp_path / "no", code=4, says="is the server running")


@pytest.mark.parametrize(
    "words",
    [
        ["image", "resize", "URL", "+1M"],
        ["image", "check", "URL"],
        ["image", "chain", "URL"],
        ["image", "commit", "URL"],
        ["image", "commit", "-b", "URL", "/nonexistent"],
        ["image", "amend", "URL"],
        ["image", "write", "--from", "/dev/null", "URL", "0"],
        ["image", "bitmap", "list", "URL"],
        ["image", "bitmap", "merge", "--from", "URL", "/nonexistent", "a", "b"],
        ["snapshot", "list", "URL"],
        ["snapshot", "create", "URL", "x"],
        ["rebase", "--flatten", "URL"],
        ["rebase", "-b", "URL", "/nonexistent"],
    ],
    ids=" ".join,
)
def test_what_needs_a_file(words: list[str]) -> None:
    uri = "https://example.invalid/disk.qcow2"
    argv = [uri if word == "URL" else word for word in words]
    one_line(*argv, code=2, says=f"{uri}: is not a file of this host")


def test_without_the_module_the_package_is_named() -> None:
    for uri in ("http://127.0.0.1:1/a.img", "https://127.0.0.1:1/a.qcow2", "ssh://127.0.0.1:1/a"):
        line = f"mount -t tmpfs none {MODULES} && exec {PROGRAM} info {uri}"
        argv = ["unshare", "-m", "sh", "-c", line]
        done = subprocess.run(argv, capture_output=True, check=False, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (7, 1), done.stderr
        assert "apt install qemu-block-extra" in done.stderr


@contextmanager
def ssh_server(folder: Path) -> Iterator[int]:
    """The port of an sshd that knows the key ``folder/key``; its own is ``folder/host``."""
    for name in ("host", "key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "key.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "PidFile": folder / "pid",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "conf").write_text("".join(f"{key} {value}\n" for key, value in words.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    argv = ["/usr/sbin/sshd", "-D", "-f", folder / "conf", "-E", folder / "log"]
    with subprocess.Popen(argv) as child:
        try:
            deadline = time.monotonic() + 10
            while not (folder / "pid").exists():
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield port
        finally:
            child.terminate()


def at_home(home: Path, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run imgtools where the user's home, as libssh asks for it, is ``home``."""
    me = pwd.getpwuid(os.getuid())
    users = home.parent / "passwd"
    users.write_text(f"{me.pw_name}:x:{me.pw_uid}:{me.pw_gid}::{home}:/bin/sh\n")
    line = f"mount --bind {users} /etc/passwd && exec {PROGRAM} {shlex.join(map(str, words))}"
    argv = ["unshare", "-m", "sh", "-c", line]
    return subprocess.run(argv, capture_output=True, check=False)


def test_an_ssh_server(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    target = tmp_path / "copy"
    with ssh_server(tmp_path) as port:
        uri = f"ssh://127.0.0.1:{port}{folder}/disk.qcow2"
        done = at_home(home, "image", "map", uri)
        assert (done.returncode, done.stderr.count(b"\n")) == (4, 1)
        assert b"log in there once" in done.stderr
        key = (tmp_path / "host.pub").read_text()
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
        done = at_home(home, "image", "map", uri)
        assert (done.returncode, done.stderr.count(b"\n")) == (4, 1)
        assert b"a key is needed" in done.stderr
        shutil.copy(tmp_path / "key", home / ".ssh" / "id_ed25519")
        done = at_home(home, "convert", "-O", "raw", "--verify", uri, target)
        assert (done.returncode, done.stderr) == (0, b"")
        assert digest(target) == digest(folder / "disk.img")
        done = at_home(home, "image", "compare", uri, folder / "disk.img")
        assert (done.returncode, done.stdout) == (0, b"the same\n")
        done = at_home(home, "info", uri)
        assert f"({SIZE} bytes)".encode() in done.stdout
        for name, code, says in (("none", 4, b"check the name"), ("overlay.qcow2", 8, b"may not")):
            done = at_home(home, "image", "map", f"ssh://127.0.0.1:{port}{folder}/{name}")
            assert (done.returncode, done.stderr.count(b"\n")) == (code, 1), done.stderr
            assert says in done.stderr
