"""diff: between two guests, an overlay and its backing file, an image and its snapshot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import make_ext4, write_guest
from tests.direct.test_cat import peak_memory

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two crafted guests that differ in one file of each kind of difference."""
    folder = tmp_path_factory.mktemp("pair")
    old, new = folder / "old", folder / "new"
    old.mkdir()
    write_guest(old)
    (old / "sparse").unlink()
    (old / "var/lib/dpkg").mkdir(parents=True)
    (old / "var/lib/dpkg/status").touch()
    (old / "same-size").write_bytes(b"one\n")
    (old / "mode").write_bytes(b"")
    (old / "owner").write_bytes(b"")
    (old / "attribute").write_bytes(b"")
    (old / "turns").write_bytes(b"file")
    (old / "times").write_bytes(b"x")
    shutil.copytree(old, new, symlinks=True, copy_function=copy)
    os.mkfifo(new / "pipe")
    (new / "etc/link").unlink()
    (new / "etc/link").symlink_to("hosts")
    (new / "same-size").write_bytes(b"two\n")
    (new / "etc/hostname").write_bytes(b"renamed\n")
    os.utime(new / "etc/hostname", ns=(0, 10**9))
    (new / "mode").chmod(0o600)
    (new / "turns").unlink()
    (new / "turns").symlink_to("elsewhere")
    os.utime(new / "times", ns=(0, 10**9))
    os.setxattr(new / "attribute", "user.colour", b"\x01red")
    os.chown(new / "owner", 1000, 1001)
    (new / os.fsdecode(b"odd/\xffnew\n")).write_bytes(b"")
    shutil.rmtree(new / "deep")
    return make_ext4(old, folder / "old.img"), make_ext4(new, folder / "new.img")


def copy(source: str, target: str) -> None:
    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copy2(source, target)


def result_of(*words: str | Path, code: int = 10) -> dict[str, Any]:
    done = imgtools("diff", "--json", *words)
    assert (done.code, done.stderr) == (code, "")
    document = json.loads(done.stdout)
    assert (document["schema"], document["engine"]) == ("imgtools/diff", "direct")
    result: dict[str, Any] = document["result"]
    return result


def by_path(result: dict[str, Any]) -> dict[str, str]:
    return {
        one["path"]: " ".join([one["change"], *one.get("differences", [])])
        for one in result["changes"]
    }


def test_every_kind_of_difference(pair: tuple[Path, Path]) -> None:
    result = result_of("-a", pair[0], "-A", pair[1])
    assert by_path(result) == {
        "/attribute": "modified xattrs",
        "/deep": "removed",
        "/deep/er": "removed",
        "/deep/er/est": "removed",
        "/etc/hostname": "modified content",
        "/etc/link": "modified target",
        "/mode": "modified mode",
        "/odd/\\xffnew\\x0a": "added",
        "/owner": "modified owner",
        "/pipe": "added",
        "/same-size": "modified content",
        "/turns": "modified type",
    }
    sides = {one["path"]: (one["before"], one["after"]) for one in result["changes"]}
    assert [side["mode"] for side in sides["/mode"]] == ["0644", "0600"]
    assert [side["target"] for side in sides["/etc/link"]] == ["/etc/hostname", "hosts"]
    assert result["facts"] == [
        {"area": "system", "name": "hostname", "before": "crafted", "after": "renamed"}
    ]


def test_lines_are_those_of_virt_diff(pair: tuple[Path, Path]) -> None:
    done = imgtools("diff", "--content", "--uids", "--xattrs", *pair)
    assert done.code == 10
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    assert lines[:2] == [
        "- - 0644          0    0    0 /attribute",
        "+ - 0644          0    0    0 /attribute user.colour \\x01red",
    ]
    assert lines[2] == "# changed: xattrs"
    start = lines.index("= - 0644          4    0    0 /same-size")
    assert lines[start + 1 : start + 5] == ["@@ -1 +1 @@", "-one", "+two", "@@ End of diff @@"]
    assert "+ - 0644          0 1000 1001 /owner" in lines
    assert "# changed: st_uid st_gid" in lines
    assert lines[-2:] == ["System", "  ~ hostname crafted -> renamed"]


def test_csv_has_files_only_and_quotes(pair: tuple[Path, Path]) -> None:
    done = imgtools("diff", "--csv", "--checksum", "--times", "--time-t", *pair)
    assert done.code == 10
    lines = done.stdout.split(b"\n")
    assert any(line.startswith(b"=,-,0644,8,") and b"/etc/hostname" in line for line in lines)
    assert b"#,changed:,st_mode" in lines
    assert b"#,changed:,st_mtime_sec" in lines  # --times makes them count
    assert b'"/odd/\xffnew' in done.stdout
    assert b"hostname crafted" not in done.stdout


def test_quick_trusts_sizes_and_times(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = by_path(result_of("--quick", *pair))
    assert result["/times"] == "modified times"
    assert result["/etc/hostname"] == "modified times"  # of one size: only its time tells


def test_nothing_differs(pair: tuple[Path, Path]) -> None:
    done = imgtools("diff", pair[0], pair[0])
    assert (done.code, done.stdout, done.stderr) == (0, b"", "")
    result = result_of(pair[0], pair[0], code=0)
    assert (result["differ"], result["changes"], result["facts"]) == (False, [], [])


def test_backing_file_and_two_images_agree(image: Image) -> None:
    overlay = image("qcow2-on-raw")
    base = overlay.with_name("base.raw")
    result = result_of(overlay, "--backing")
    assert by_path(result)["/data/second"] == "added"
    assert by_path(result)["/etc/hostname"] == "modified content size"
    assert len(result["changes"]) == 1003
    assert result_of("-a", base, "-A", overlay)["changes"] == result["changes"]
    copied = result_of("--format", "raw", "-a", base, "--format", "qcow2", "-A", overlay)
    assert copied["changes"] == result["changes"]
    back = by_path(result_of("-a", overlay, "-A", base))
    assert back["/data/second"] == "removed"


def test_each_layer_of_a_chain_against_the_one_below(image: Image) -> None:
    result = by_path(result_of(image("qcow2-chain"), "--backing"))
    assert result["/data/third"] == "added"
    assert "/data/second" not in result
    assert result["/data/big.bin"] == "removed"


@pytest.mark.parametrize("name", ["installed", "1"])
def test_an_internal_snapshot(name: str, image: Image) -> None:
    result = result_of(image("qcow2-snapshot"), "--snapshot", name)
    expected = result_of(image("qcow2-on-raw"), "--backing")
    assert by_path(result) == by_path(expected)


def test_a_snapshot_of_another_size_and_with_a_backing_file(tmp_path: Path, image: Image) -> None:
    base = image("qcow2-on-raw").with_name("base.raw")
    top = tmp_path / "top.qcow2"
    for words in (
        ("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top),
        ("snapshot", "-c", "first", top),
        ("resize", "-q", top, "+64M"),
        ("snapshot", "-c", "second", top),
    ):
        subprocess.run(["qemu-img", *words], check=True)
    assert result_of(top, "--snapshot", "first", code=0)["changes"] == []
    assert result_of(top, "--snapshot", "second", code=0)["changes"] == []


@pytest.mark.parametrize(
    "form",
    [
        "cluster_size=512",
        "cluster_size=2M",
        "cluster_size=64k,compression_type=zstd",
        "cluster_size=16k,extended_l2=on",
        "compat=0.10",
    ],
)
def test_snapshots_of_any_layout(form: str, tmp_path: Path, image: Image) -> None:
    """The first state as a snapshot, partly compressed, and the second one written over it."""
    overlay, top = image("qcow2-on-raw"), tmp_path / "top.qcow2"
    base = overlay.with_name("base.raw")
    packed = [] if "extended" in form else ["-c"]
    convert = ["convert", *packed, "-f", "raw", "-O", "qcow2", "-o", form, base, top]
    subprocess.run(["qemu-img", *convert], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "kept", top], check=True)
    write = ["convert", "-n", "-f", "qcow2", "-O", "qcow2", overlay, top]
    subprocess.run(["qemu-img", *write], check=True)
    result = result_of(top, "--snapshot", "kept", "--read-all")
    assert by_path(result) == by_path(result_of(overlay, "--backing"))


def test_bad_words(pair: tuple[Path, Path], image: Image, tmp_path: Path) -> None:
    plain, other = pair
    cases = [
        ((), 2, "which disk"),
        ((plain,), 2, "compare with what"),
        ((plain, other, "--backing"), 2, "one thing only"),
        ((plain, other, plain), 2, "one word too many"),
        ((plain, "--backing"), 2, "has no backing file"),
        ((plain, "--snapshot", "x"), 4, "holds no internal snapshot x"),
        ((image("qcow2-snapshot"), "--snapshot", "x"), 4, "there are: installed"),
        ((plain, other, "--csv", "--json"), 2, "--json cannot be combined"),
        ((plain, other, "--csv", "-h"), 2, "-h and --csv"),
        ((plain, other, "--quick", "--content"), 2, "--quick reads no file"),
        ((plain, other, "--quick", "--read-all"), 2, "--quick reads no file"),
        ((plain, other, "--checksum=md4"), 2, "--checksum=md4"),
        ((plain, tmp_path / "missing"), 4, "missing"),
        (("-a", plain, "-A", other, "-D", "x"), 2, "-A and -D cannot be mixed"),
    ]
    for words, code, complaint in cases:
        done = imgtools("diff", *words)
        assert (done.code, done.stdout) == (code, b""), (words, done.stderr)
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_appliance_refuses_a_snapshot_with_the_way_out(image: Image) -> None:
    words = ("--engine", "appliance", "--snapshot", "installed")
    done = imgtools("diff", image("qcow2-snapshot"), *words)
    assert (done.code, done.stdout) == (4, b"")
    assert "imgtools convert -l" in done.stderr


def test_a_snapshot_table_that_lies(tmp_path: Path, image: Image) -> None:
    lie = tmp_path / "lie.qcow2"
    shutil.copy(image("qcow2-snapshot"), lie)
    raw = bytearray(lie.read_bytes())
    table = int.from_bytes(raw[64:72], "big")
    for offset in (1 << 60, 12345, len(raw)):
        raw[table : table + 8] = offset.to_bytes(8, "big")
        lie.write_bytes(raw)
        done = imgtools("diff", "--engine", "direct", lie, "--snapshot", "installed")
        assert (done.code, done.stdout) == (4, b"")
        assert "its L1 table lies outside the image" in done.stderr


def test_memory_does_not_grow_with_the_differences(tmp_path: Path) -> None:
    for name in ("small", "large"):
        root = tmp_path / name
        root.mkdir()
        write_guest(root)
        (root / "sparse").unlink()
    for folder in range(30):
        (tmp_path / "large/many" / str(folder)).mkdir(parents=True)
        for number in range(1000):
            (tmp_path / "large/many" / str(folder) / f"file-with-a-name-{number}").touch()
    small = make_ext4(tmp_path / "small", tmp_path / "small.img")
    large = make_ext4(tmp_path / "large", tmp_path / "large.img", 512 << 20)
    command = [PROGRAM, "diff", "--json", "--no-facts", small, large]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        text, peak = b"", 0
        while chunk := child.stdout.read(1 << 20):
            text += chunk
            peak = max(peak, peak_memory(child.pid))
    assert child.returncode == 10
    assert len(json.loads(text)["result"]["changes"]) == 30_031
    assert 10 << 20 < peak < 100 << 20


def test_forged_inode_times_are_seen_through_on_request(tmp_path: Path, image: Image) -> None:
    """Bytes of a file change beneath its filesystem: the inode says that nobody was there."""
    base = image("qcow2-on-raw").with_name("base.raw")
    offset = base.read_bytes().index(b"line 12345\n")
    top, patch = tmp_path / "top.qcow2", tmp_path / "patch"
    patch.write_bytes(b"LINE")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top], check=True
    )
    write = f"write -s {patch} {offset} 4"
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", write, top], check=True, stdout=subprocess.DEVNULL
    )
    assert result_of(top, "--backing", code=0)["changes"] == []
    result = result_of(top, "--backing", "--read-all", "--content")
    assert by_path(result) == {"/data/text.txt": "modified content"}
    assert "+LINE 12345" in result["changes"][0]["diff"]
