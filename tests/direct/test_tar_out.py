"""tar-out: archives that GNU tar and Python read back to what the guest holds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import SPARSE_SIZE
from tests.direct.extracted import ENTRIES, assert_holds_the_tree, names_in
from tests.direct.test_cat import peak_memory

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@as_root
@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs-flat"])
def test_gnu_tar_unpacks_what_the_fixture_holds(name: str, image: Image, tmp_path: Path) -> None:
    archive = tmp_path / "data.tar"
    words = ("--xattrs", "--acls", "--selinux", "--numeric-owner")
    done = imgtools("tar-out", "-a", image(name), "/data", archive, *words)
    assert (done.code, done.stdout, done.stderr) == (0, b"", "")
    place = tmp_path / "place"
    place.mkdir()
    unpacked = subprocess.run(
        ["tar", "-C", place, "--xattrs", "--xattrs-include=*", "--acls", "--warning=no-timestamp",
         "-xpf", archive],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert unpacked.stderr == ""
    assert_holds_the_tree(place)
    assert os.getxattr(place / "xattr/user", "user.comment") == b"a comment"
    assert archive.stat().st_size % 10240 == 0


@as_root
def test_holes_are_not_stored(image: Image, tmp_path: Path) -> None:
    words = ("tar-out", "-a", image("ext4"), "/data", "-")
    whole, sparse = imgtools(*words), imgtools(*words, "--sparse", "--xattrs")
    assert (sparse.code, sparse.stderr) == (0, "")
    assert len(whole.stdout) - len(sparse.stdout) > 15 << 20
    subprocess.run(["tar", "-C", tmp_path, "-xpf", "-"], input=sparse.stdout, check=True)
    assert_holds_the_tree(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(sparse.stdout)) as tar:
        with tarfile.open(fileobj=io.BytesIO(whole.stdout)) as other:
            for one in other:
                assert tar.getmember(one.name).size == one.size
                if one.isreg():
                    ours, theirs = tar.extractfile(one.name), other.extractfile(one)
                    assert ours is not None
                    assert theirs is not None
                    assert ours.read() == theirs.read(), one.name
        holes = [one for one in tar if one.issparse()]
    assert holes
    for one in holes:
        found = (tmp_path / one.name).stat()
        assert found.st_blocks * 512 < found.st_size


def test_python_reads_names_owners_and_links(image: Image) -> None:
    done = imgtools("tar-out", "-a", image("ext4"), "/data", "-")
    assert done.code == 0
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        found = {os.fsencode(one.name): one for one in tar.getmembers()}
    for entry in ENTRIES:
        assert b"./" + entry.path.removeprefix(b"data/") in found
    assert (found[b"./modes/bob"].uname, found[b"./modes/bob"].uid) == ("bob", 1000)
    assert found[b"./modes/big-owner"].gid == 2_000_000
    assert found[b"./hard/third"].linkname == "./hard/first"
    assert found[b"./links/long"].linkname == "./" * 100 + "../hello.txt"
    numeric = imgtools("tar-out", "-a", image("ext4"), "/data", "-", "--numeric-owner")
    with tarfile.open(fileobj=io.BytesIO(numeric.stdout)) as tar:
        assert {one.uname for one in tar.getmembers()} == {""}


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzma", "zstd"])
def test_compressed(kind: str, crafted: Path) -> None:
    plain = imgtools("tar-out", "-a", crafted, "/odd", "-").stdout
    packed = imgtools("tar-out", "-a", crafted, "/odd", "-", "--compress", kind)
    assert packed.code == 0
    command = ["xz", "-dc", "--format=lzma"] if kind == "lzma" else [kind, "-dc"]
    unpacked = subprocess.run(command, input=packed.stdout, capture_output=True, check=True)
    assert unpacked.stdout == plain


def test_acls_and_labels_as_gnu_tar_writes_them(tmp_path: Path) -> None:
    """An image made with ACLs, and GNU tar's own archive of the folder it was made of."""
    from tests.direct.crafted import make_ext4

    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    subprocess.run(["setfacl", "-m", "u:54321:rwx,g:54322:r", root / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:54323:x", root / "folder"], check=True)
    os.setxattr(root / "file", "user.binary", b"\0\xff=\n")
    if os.geteuid() == 0:
        os.setxattr(root / "file", "security.selinux", b"system_u:object_r:etc_t:s0\0")
    disk = make_ext4(root, tmp_path / "disk.img")
    words = ("--xattrs", "--acls", "--selinux", "-m", "/dev/sda")
    done = imgtools("tar-out", "-a", disk, *words, "/", "-")
    assert done.code == 0, done.stderr
    other = subprocess.run(
        ["tar", "--format=posix", "-C", root, "--xattrs", "--acls", "--numeric-owner",
         "-cf", "-", "."], capture_output=True, check=True,
    )  # fmt: skip

    def wanted(key: str) -> bool:
        # GNU tar stores ACLs and labels a second time, raw.
        raw = key.startswith(("SCHILY.xattr.system.", "SCHILY.xattr.security."))
        return key.startswith(("SCHILY.", "RHT.")) and not raw

    def attributes(data: bytes, name: str) -> dict[str, str]:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = tar.getmember(name).pax_headers
        return {key: value for key, value in found.items() if wanted(key)}

    expected = attributes(other.stdout, "./file")
    assert attributes(done.stdout, "./file").items() >= expected.items()
    default = "SCHILY.acl.default"
    folders = [attributes(data, "./folder") for data in (done.stdout, other.stdout)]
    assert folders[0][default] == folders[1][default]
    if os.geteuid() == 0:
        label = attributes(done.stdout, "./file")["RHT.security.selinux"]
        assert label.startswith("system_u:object_r:etc_t")


def test_excludes(image: Image) -> None:
    words = ("--exclude", "many", "--exclude", "./links/*", "--exclude", "first")
    done = imgtools("tar-out", "-a", image("ext4"), "/data", "-", *words)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        found = {os.fsencode(one.name): one for one in tar.getmembers()}
    names = b" ".join(found)
    assert b"many" not in names
    assert b"links/" not in names
    assert b"./links" in found
    # The first name of a file is left out: the second one carries the content.
    assert found[b"./hard/second"].isreg()
    assert found[b"./hard/second"].size == 22


def test_a_file_appears_whole_or_not_at_all(crafted: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    with subprocess.Popen([PROGRAM, "tar-out", "-a", crafted, "/", target]) as child:
        while not any(tmp_path.iterdir()):
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 128 + signal.SIGTERM
    assert names_in(tmp_path) == []
    assert imgtools("tar-out", "-a", crafted, "/missing", target).code == 6
    assert names_in(tmp_path) == []


def test_what_is_there_is_refused(crafted: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    target.write_text("old", encoding="utf-8")
    done = imgtools("tar-out", "-a", crafted, "/odd", target)
    assert (done.code, target.read_text(encoding="utf-8")) == (8, "old")
    assert imgtools("tar-out", "-a", crafted, "/odd", target, "--force").code == 0
    assert tarfile.is_tarfile(target)


def test_bad_words(crafted: Path, tmp_path: Path) -> None:
    for words, code, complaint in [
        (("/etc",), 2, "into which file"),
        (("/etc/hostname", "-"), 6, "is not a directory"),
        (("/nowhere", "-"), 6, "no such file"),
        (("/etc", "-", "--compress", "lzop"), 2, "known: gzip"),
        (("/etc", tmp_path / "no/out.tar"), 1, "No such file"),
    ]:
        done = imgtools("tar-out", "-a", crafted, *words)
        assert (done.code, done.stdout) == (code, b""), done.stderr
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_large_archive_streams(crafted: Path) -> None:
    command = [PROGRAM, "tar-out", "-a", crafted, "/", "-", "--exclude", "odd"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        size = peak = 0
        while chunk := child.stdout.read(1 << 20):
            size += len(chunk)
            peak = max(peak, peak_memory(child.pid))
    assert child.returncode == 0
    assert size > SPARSE_SIZE
    assert peak < 150 << 20


def test_a_full_disk_and_a_reader_that_leaves(crafted: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (the real thing)
        done = subprocess.run(
            [PROGRAM, "tar-out", "-a", crafted, "/odd", "-"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in done.stderr
    script = f"'{PROGRAM}' tar-out -a '{crafted}' / - | head -c 5 | wc -c; echo ${{PIPESTATUS[0]}}"
    left = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (left.stdout.split(), left.stderr) == (["5", "141"], "")
