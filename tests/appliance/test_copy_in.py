"""copy-in and tar-in: everything as it was on this host, where the guest's links lead."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import (
    assert_sound,
    change,
    content,
    found,
    is_there,
    members,
    overlay_of,
    read,
    state,
)
from tests.cli import imgtools

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WHEN = 981173106  # 2001-02-03T04:05:06Z
ODD = (b"new\nline", b"not-utf8-\xff\xfe", b"-dash", b"quote'\"\\$`*?[", b"\x1b[31mred")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of everything that is hard to copy."""
    top = tmp_path / "source"
    (top / "sub/empty").mkdir(parents=True)
    for name in ODD:
        Path(os.fsdecode(os.fsencode(top) + b"/sub/" + name)).write_bytes(name)
    (top / "plain").write_text("plain\n")
    (top / "plain").chmod(0o640)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o6755)
    os.link(top / "plain", top / "second")
    (top / "link").symlink_to("/etc/shadow")
    (top / "climbing").symlink_to("../../../../../../etc")
    with (top / "sparse").open("wb") as stream:
        stream.truncate(80 << 20)
        stream.seek(40 << 20)
        stream.write(b"in the middle")
    os.mkfifo(top / "fifo", 0o600)
    os.setxattr(top / "plain", "user.note", b"with\0NUL")
    os.setxattr(top / "sub", "user.note", b"of a folder")
    (top / "sub").chmod(0o1777)
    for path in (top / "plain", top / "sub/empty", top / "sub", top):
        os.utime(path, ns=(WHEN * 10**9, WHEN * 10**9 + 5))
    return top


def as_a_tar(folder: Path) -> dict[str, tarfile.TarInfo]:
    """The folder as this host's tar sees it."""
    words = ["tar", "-C", folder, "--format=posix", "--xattrs", "--acls", "-cf", "-", "."]
    done = subprocess.run(words, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout), errors="surrogateescape") as tar:
        return {one.name: one for one in tar}


def facts(one: tarfile.TarInfo, *, owners: bool = True) -> dict[str, object]:
    """What must be the same of two members; which of two names is the link may differ.

    The attributes of files are looked at one by one, as a link in an archive has none.
    """
    is_file = one.isfile() or one.islnk()
    # An ACL is compared in its own form: tar has it as text, too.
    attributes = {
        name: text
        for name, text in one.pax_headers.items()
        if "xattr" in name and "posix_acl" not in name
    }
    return {
        "type": b"0" if is_file else one.type,
        "mode": one.mode,
        "mtime": round(one.mtime, 6),
        "linkname": one.linkname if one.issym() else "",
        "device": (one.devmajor, one.devminor) if one.isdev() else (),
        "owner": (one.uid, one.gid) if owners else (),
        "attributes": {} if is_file else attributes,
    }


LABEL = "system_u:object_r:bin_t:s0"


@as_root
def test_everything_arrives_as_it_was(disk: Path, source: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    os.mknod(source / "device", 0o20666, os.makedev(1, 3))
    os.chown(source / "plain", 1234, 4321)
    os.chown(source / "link", 1234, 4321, follow_symlinks=False)
    # a file capability, which tar keeps as an attribute
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "run", "security.capability", capability)
    os.setxattr(source / "run", "security.selinux", LABEL.encode())
    access = bytes.fromhex(
        "0200000001000600ffffffff02000600e903000004000400ffffffff10000600ffffffff20000000ffffffff"
    )
    os.setxattr(source / "sub/empty", "system.posix_acl_access", access)
    os.utime(source / "sub", ns=(WHEN * 10**9, WHEN * 10**9))

    done = change("copy-in", *raw, source, source / "plain", "/into")
    assert sorted(done.lines) == ["copied /srv/deep/plain", "copied /srv/deep/source"]
    expected, arrived = as_a_tar(source), members(disk, "/srv/deep/source")
    assert arrived.keys() == expected.keys()
    for name, one in expected.items():
        assert facts(arrived[name]) == facts(one), name
    note = "user.note (8) = 77 69 74 68 00 4e 55 4c "
    assert found(disk, "/srv/deep/source/plain").attributes == (note,)
    assert "SCHILY.xattr.security.capability" in str(arrived["./run"].pax_headers)
    assert arrived["./run"].pax_headers["RHT.security.selinux"] == LABEL
    for name in ODD:
        member = "./sub/" + name.decode("utf-8", "surrogateescape")
        assert arrived[member].size == len(name)
    assert found(disk, "/srv/deep/source/plain").links == 3  # "second", and what was named apart
    (acl,) = found(disk, "/srv/deep/source/sub/empty").attributes
    assert acl.startswith(
        "system.posix_acl_access (28) = 01 00 00 00 01 00 06 00 02 00 06 00 e9 03"
    )
    assert found(disk, "/srv/deep").mode == 0o750  # the folder keeps its own
    # a hole is a hole: 80 MiB of the file take next to nothing
    sparse = found(disk, "/srv/deep/source/sparse")
    assert sparse.kind == "regular"
    assert disk.stat().st_blocks * 512 < 40 << 20
    text = content(disk, "/srv/deep/source/sparse")
    assert (len(text), text.strip(b"\0")) == (80 << 20, b"in the middle")
    assert_sound(disk)


def test_owner_and_replacing(disk: Path, source: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    (source / "device").unlink(missing_ok=True)
    folder = source.parent / "srv"
    source.rename(folder)
    (folder / "replaced").write_text("new\n")
    (folder / "folder-link").mkdir()
    before = found(disk, "/srv")
    done = change("copy-in", *raw, "--owner", "bob:wheel", folder, "/")
    assert "copied /srv/replaced" in done.lines
    assert content(disk, "/srv/replaced") == b"new\n"
    assert content(disk, "/srv/kept") == b"kept\n"
    arrived = members(disk, "/srv")
    ours = set(as_a_tar(folder)) - {"."}
    assert ours < set(arrived)
    assert {(arrived[name].uid, arrived[name].gid) for name in ours} == {(1000, 10)}
    # a folder that was there keeps owner and mode
    after = found(disk, "/srv")
    assert (after.mode, after.owner) == (before.mode, before.owner) == (0o2775, (0, 0))

    unchanged = state(disk)
    for words, code, why in [
        ((folder, folder.parent / "disks/../srv", "/"), 2, "two sources are called srv"),
        ((folder / "none", "/"), 2, "no such file on this host"),
        ((folder, "/srv/kept"), 6, "/srv/kept: is not a directory in the guest"),
        ((folder, "/none"), 6, "/none: no such file"),
        ((folder, "srv"), 2, "not an absolute path"),
        (("--owner", "nobody-knows", folder, "/"), 6, "the guest has no such user"),
    ]:
        done = imgtools("copy-in", *raw, *words)
        assert (done.code, why in done.stderr) == (code, True), done.stderr
    (folder.parent / "kept").mkdir()
    done = imgtools("copy-in", *raw, folder.parent / "kept", "/srv")
    assert (done.code, "is no directory in the guest" in done.stderr) == (6, True), done.stderr
    assert state(disk) == unchanged


def test_links_of_a_hostile_guest_lead_nowhere_but_into_it(disk: Path, tmp_path: Path) -> None:
    """Folders of ours meet links of the guest that would lead tar to the appliance's own files."""
    names = ("lib", "root", "out", "folder", "file", "proc")
    for name in names[:-2]:
        (tmp_path / "trap" / name).mkdir(parents=True)
        (tmp_path / "trap" / name / f"from-{name}").write_text(name)
    (tmp_path / "trap/out/hostname").write_text("taken over\n")
    (tmp_path / "trap/file").write_text("a file replaces a link")
    host = of_this_host()
    raw = ("--format", "raw", "-a", disk)
    passwd = content(disk, "/etc/passwd")
    done = change("copy-in", *raw, tmp_path / "trap", "/")
    assert sorted(done.lines) == [
        *("copied /etc/from-out", "copied /etc/hostname", "copied /from-root"),
        *("copied /trap/file", "copied /trap/folder/from-folder", "copied /usr/lib/from-lib"),
    ]
    assert content(disk, "/usr/lib/from-lib") == b"lib"
    assert content(disk, "/from-root") == b"root"
    assert content(disk, "/etc/hostname") == b"taken over\n"  # the guest's own
    assert content(disk, "/etc/passwd") == passwd
    assert found(disk, "/trap/file").kind == "regular"
    assert found(disk, "/trap/lib").kind == found(disk, "/trap/root").kind == "symlink"
    assert of_this_host() == host
    # /proc/self/root leads to the guest's /proc, where there is no "self"
    (tmp_path / "two/trap/proc").mkdir(parents=True)
    before = state(disk)
    done = imgtools("copy-in", *raw, tmp_path / "two/trap", "/")
    assert (done.code, "/trap/proc: is no directory" in done.stderr) == (6, True), done.stderr
    assert state(disk) == before
    assert_sound(disk)


def of_this_host() -> tuple[object, ...]:
    """What a link that is followed on this host would change."""
    return Path("/etc/hostname").read_bytes(), set(Path("/").iterdir()), set(Path("/etc").iterdir())


def archive(*entries: tuple[str, bytes | str]) -> bytes:
    """A tar of files (bytes) and symbolic links (str)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                tar.addfile(info)
            else:
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
    return out.getvalue()


def test_every_compression(disk: Path, tmp_path: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    for number, (suffix, pack) in enumerate(
        [
            ("gz", gzip.compress),
            ("xz", lzma.compress),
            ("zst", lambda data: _piped(["zstd", "-qc"], data)),
            ("bz2", lambda data: _piped(["bzip2", "-c"], data)),
        ]
    ):
        path = tmp_path / f"a.tar.{suffix}"
        path.write_bytes(pack(archive((f"in-{suffix}", b"packed"), ("same", b"%d" % number))))
        change("tar-in", *raw, path, "/srv")
        assert content(disk, f"/srv/in-{suffix}") == b"packed"
        assert content(disk, "/srv/same") == b"%d" % number
    # a plain tar by its form, though its first name looks like the magic of bzip2
    change("tar-in", *raw, "-", "/srv", stdin=archive(("BZh9", b"plain"), ("]", b"plain")))
    assert content(disk, "/srv/BZh9") == b"plain"
    assert_sound(disk)


def _piped(command: list[str], data: bytes) -> bytes:
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def test_archives_that_are_damaged_or_climb_leave_the_image_as_it_was(
    disk: Path, tmp_path: Path
) -> None:
    raw = ("--format", "raw", "-a", disk)
    whole = archive(("first", b"1"), ("big", os.urandom(3 << 20)))
    before = state(disk)
    for name, data in {
        "cut off": whole[: 1 << 20],
        "cut off in gzip": gzip.compress(whole)[: 1 << 20],
        "cut off in xz": lzma.compress(whole)[: 1 << 20],
        "damaged": gzip.compress(whole)[:-8] + b"\0" * 8,
        "empty": b"",
        "no tar": b"this is no archive" * 1000,
        "climbs": archive(("first", b"1"), ("../climbed", b"2")),
        "through its own link": archive(("out", "/etc"), ("out/climbed", b"2")),
    }.items():
        path = tmp_path / "archive"
        path.write_bytes(data)
        done = imgtools("tar-in", *raw, path, "/srv/deep")
        assert done.code in (1, 6), (name, done)
        assert len(done.stderr.splitlines()) == 1, (name, done.stderr)
        assert state(disk) == before, name
    for words, code, why in [
        ((tmp_path / "none.tar", "/srv"), 2, "none.tar: no such file on this host"),
        ((tmp_path / "archive", "/srv/kept"), 6, "is not a directory in the guest"),
        ((tmp_path / "archive",), 2, "which archive, in which folder?"),
    ]:
        done = imgtools("tar-in", *raw, *words)
        assert (done.code, why in done.stderr) == (code, True), done.stderr
    assert state(disk) == before


def test_an_absolute_name_stays_below_the_folder(disk: Path) -> None:
    data = archive(("/etc/passwd", b"root::0:0::/:\n"), ("//second", b"2"))
    passwd = content(disk, "/etc/passwd")
    change("tar-in", "--format", "raw", "-a", disk, "-", "/srv", stdin=data)
    assert content(disk, "/srv/etc/passwd") == b"root::0:0::/:\n"
    assert content(disk, "/etc/passwd") == passwd
    assert is_there(disk, "/srv/second")


@as_root
def test_over_several_filesystems_of_a_real_debian(image: Image, tmp_path: Path) -> None:
    disk = overlay_of(image("debian-lvm"), tmp_path / "disk.qcow2")
    top = tmp_path / "top"
    for path in ("home/alice/.config", "boot/efi/EFI/test", "usr/local/bin", "lib/test"):
        (top / path).mkdir(parents=True)
    (top / "home/alice/.config/x").write_text("on XFS\n")
    os.setxattr(top / "home/alice/.config/x", "user.note", b"kept")
    os.chown(top / "home/alice/.config/x", 1000, 1000)
    os.link(top / "home/alice/.config/x", top / "home/alice/.config/y")
    (top / "boot/efi/EFI/test/boot.efi").write_bytes(b"MZ on FAT")
    (top / "usr/local/bin/tool").write_text("#!/bin/sh\n")
    (top / "usr/local/bin/tool").chmod(0o755)
    (top / "lib/test/file").write_text("through /lib -> usr/lib\n")
    words = ["tar", "-C", top, "--xattrs", "-czf", tmp_path / "top.tgz", "."]
    subprocess.run(words, check=True)
    change("tar-in", "-a", disk, tmp_path / "top.tgz", "/")
    assert read(disk, "/home/alice/.config/x") == b"on XFS\n"
    home = members(disk, "/home/alice/.config")
    assert (home["./x"].uid, home["./x"].pax_headers["SCHILY.xattr.user.note"]) == (1000, "kept")
    assert home["./y"].islnk() or home["./x"].islnk()
    assert read(disk, "/boot/efi/EFI/test/boot.efi") == b"MZ on FAT"
    assert read(disk, "/usr/lib/test/file") == b"through /lib -> usr/lib\n"
    assert members(disk, "/usr/local/bin")["./tool"].mode == 0o755
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
