"""The instant appliance as users meet it: used by itself; every fault ends in a working launch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgtools.appliance import instant
from imgtools.appliance.instant import template
from imgtools.appliance.launch import Appliance
from imgtools.config import Config, load
from imgtools.errors import NoTemplateError
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from tests.appliance.ways import new_handle, qemu_processes, scratch
from tests.soak import memory_bound, soak

pytestmark = [pytest.mark.appliance, pytest.mark.instant]

IMGTOOLS = str(Path(sys.executable).with_name("imgtools"))
MIB = 1 << 20


def a_disk(folder: Path) -> Disk:
    path = folder / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    layer = ImageLayer(path=path, format="raw", virtual_size=64 * MIB)
    return Disk(request=DiskRequest(path=path, format="raw"), layers=(layer,))


def launch(folder: Path, config: Config) -> Appliance:
    """Launch, look that it works, end; what remains is what the appliance knows of itself."""
    appliance = Appliance([a_disk(folder)], config)
    try:
        assert appliance.call(lambda lib: lib.texts("list_devices")) == [b"/dev/sda"]
    finally:
        appliance.close()
    return appliance


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder of its own with a copy of the template, linked where nothing changes."""
    original = instant.current(load()).folder
    parent = tmp_path / "cache" / "instant"
    parent.mkdir(parents=True, mode=0o700)
    copy = parent / original.name
    copy.mkdir(mode=0o700)
    for path in original.iterdir():
        if path.name in ("state", "template.json"):
            shutil.copy2(path, copy)
        else:
            (copy / path.name).hardlink_to(path)
    return tmp_path / "cache"


@pytest.fixture
def config(cache: Path) -> Config:
    return replace(load(), cache_dir=str(cache))


def template_in(cache: Path) -> Path:
    return next(path for path in (cache / "instant").iterdir() if path.is_dir())


def spoil(path: Path) -> None:
    """Change a file's content so that its size and time do not tell; the original is kept."""
    before = path.stat()
    new = path.with_name("spoiled")
    if before.st_size > 64 * MIB:
        with new.open("wb") as stream:
            stream.truncate(before.st_size)
    else:
        whole = path.read_bytes()
        new.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)


def warnings(appliance: Appliance) -> list[str]:
    """But for KVM, which a cache folder of the test's own has never heard of."""
    codes = [notice.code for notice in appliance.notices]
    return [code for code in codes if code != "appliance.kvm-broken"]


# --- used by itself ------------------------------------------------------------------------------


def test_a_launch_resumes_the_template(tmp_path: Path, config: Config, cache: Path) -> None:
    appliance = launch(tmp_path, config)
    assert appliance.template is not None
    assert appliance.template.folder == template_in(cache)
    assert warnings(appliance) == []


@pytest.mark.parametrize("off", ["flag", "variable"])
def test_it_can_be_turned_off(off: str, tmp_path: Path) -> None:
    a_disk(tmp_path)
    words = [IMGTOOLS, "filesystems", "--engine", "appliance", "--blkdevs", "--all"]
    words += ["--format", "raw", "-a", str(tmp_path / "disk.raw"), "--json"]
    own = tmp_path / "tmp"
    own.mkdir()
    environ = {**os.environ, "TMPDIR": str(own), "LIBGUESTFS_CACHEDIR": "/var/tmp"}
    if off == "flag":
        words.append("--no-instant")
    else:
        environ["IMGTOOLS_INSTANT"] = "0"
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE) as child:
        seen: set[str] = set()
        while child.poll() is None:
            for pid in qemu_processes():
                try:
                    words_of = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                except OSError:  # it has ended
                    continue
                if str(own) in words_of:
                    seen.add("resumed" if "-incoming" in words_of else "booted")
            time.sleep(0.05)
    assert child.returncode == 0
    assert seen == {"booted"}


def test_libguestfs_s_own_variables_win(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBGUESTFS_HV", "/usr/bin/qemu-system-x86_64")
    with pytest.raises(NoTemplateError, match="LIBGUESTFS_HV is set"):
        instant.current(config)


def test_what_no_template_fits_boots_the_short_way(tmp_path: Path) -> None:
    """The wrapper starts the real qemu for another memory size, and the trimmed /init works."""
    handle = new_handle("instant")
    said: list[str] = []
    handle.set_event_callback(lambda *event: said.append(str(event[2])), 0x10)
    handle.set_memsize(768)
    for index in range(3):
        drive = scratch(tmp_path, str(index), 64 * MIB)
        handle.add_drive_opts(str(drive.path), format="raw", label="disk" + "abc"[index])
    handle.launch()
    try:
        assert "not resumed: another machine" in "".join(said)
        assert sorted(handle.list_disk_labels()) == ["diska", "diskb", "diskc"]
        handle.pvcreate("/dev/sdb")
        handle.mkfs("ext4", "/dev/sda")
        handle.mount("/dev/sda", "/")
        handle.write("/x", b"y")
        assert handle.cat("/x") == "y"
    finally:
        handle.close()


def test_status_path_and_clean(cache: Path) -> None:
    environ = {**os.environ, "IMGTOOLS_CACHE_DIR": str(cache)}

    def run(*words: str) -> tuple[int, Any]:
        done = subprocess.run(
            [IMGTOOLS, "appliance", *words, "--json"],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or done.stderr)

    old = cache / "instant" / "tcg-1280-0000000000000000"
    shutil.copytree(template_in(cache), old, copy_function=os.link)
    name = instant.current(replace(load(), cache_dir=str(cache))).name
    code, status = run("status", "--verify")
    assert code == 0
    assert status["result"]["faults"] == []
    states = {one["name"]: one["state"] for one in status["result"]["templates"]}
    assert states == {name: "ready", old.name: "stale"}
    assert run("path")[1]["result"]["path"].endswith(name)
    assert [one["name"] for one in run("clean")[1]["result"]] == [old.name]
    spoil(cache / "instant" / name / "initrd")
    code, status = run("status", "--verify")
    assert (code, status["result"]["faults"]) == (10, ["initrd"])
    assert run("clean", "--all")[0] == 0
    code, error = run("path")
    assert (code, error["error"]["code"]) == (5, "appliance.no-template")
    assert error["error"]["hint"] == "imgtools appliance build"


# --- every clone is a machine of its own ---------------------------------------------------------


def test_a_short_soak() -> None:
    assert soak(8, memory_bound(3)) == []


def test_what_is_written_is_read_by_a_stock_appliance(tmp_path: Path) -> None:
    """Also what was synced when qemu was killed in the middle of writing."""
    path = tmp_path / "written.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "512M"], check=True)
    handle = new_handle("instant")
    handle.add_drive_opts(str(path), format="qcow2")
    handle.launch()
    handle.part_disk("/dev/sda", "gpt")
    handle.mkfs("ext4", "/dev/sda1")
    handle.mount("/dev/sda1", "/")
    handle.fill_dir("/", 100)
    handle.fill(7, 8 * MIB, "/synced")
    handle.sync()
    wanted = handle.checksum("sha256", "/synced")
    killer = threading.Timer(1.0, os.kill, (handle.get_pid(), signal.SIGKILL))
    killer.start()
    with pytest.raises(RuntimeError):
        write_for_ever(handle)
    killer.join()
    handle.close()
    subprocess.run(["qemu-img", "check", "-q", "-r", "leaks", path], check=True)
    stock = new_handle("stock")
    stock.add_drive_opts(str(path), format="qcow2")
    stock.launch()
    try:
        assert stock.e2fsck("/dev/sda1", correct=True) is None
        stock.mount("/dev/sda1", "/")
        assert stock.checksum("sha256", "/synced") == wanted
        assert len([name for name in stock.ls("/") if name.isdigit()]) == 100
    finally:
        stock.close()


def write_for_ever(handle: Any) -> None:
    for number in range(1 << 20):
        handle.fill(number % 256, MIB, f"/more{number % 300}")


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["shortened", "one bit"])
def test_a_changed_file_is_noticed_before_the_launch(
    fault: str, tmp_path: Path, config: Config, cache: Path
) -> None:
    path = template_in(cache) / "state"
    path.chmod(0o600)
    if fault == "shortened":
        os.truncate(path, 1000)
    else:
        spoil(path)
    appliance = launch(tmp_path, config)
    assert appliance.template is None
    assert "state was changed after it was built" in appliance.reason


def test_a_template_that_fails_twice_is_set_aside(
    tmp_path: Path, config: Config, cache: Path
) -> None:
    """A RAM file of zeros: the processor runs into nothing and says nothing."""
    folder = template_in(cache)
    spoil(folder / "ram")
    for aside in (False, True):
        begin = time.monotonic()
        appliance = launch(tmp_path, config)
        assert time.monotonic() - begin < 90  # ten of them until it is given up, then a boot
        assert warnings(appliance) == ["appliance.instant-failed"]
        assert ("was set aside" in appliance.notices[0].message) == aside
        assert folder.exists() != aside
    assert [one.state for one in instant.status(config)] == ["set-aside"]
    assert len(instant.status(config)[0].failures) == 2
    assert launch(tmp_path, config).template is None


def test_a_template_may_vanish_while_it_is_used(
    tmp_path: Path, config: Config, cache: Path
) -> None:
    appliance = Appliance([a_disk(tmp_path)], config)
    try:
        assert appliance.template is not None
        assert [name for name, _ in instant.clean(config, everything=True)]
        assert list(template.folders(config)) == []
        out = appliance.shell("mkfs.ext4 -q /dev/sda; blkid -o value -s TYPE /dev/sda")
        assert out.strip() == b"ext4"
    finally:
        appliance.close()


@pytest.mark.parametrize("fault", ["mode", "owner", "link"])
def test_a_folder_that_others_may_change_is_refused(
    fault: str, tmp_path: Path, config: Config, cache: Path
) -> None:
    folder = cache / "instant"
    if fault == "mode":
        folder.chmod(0o777)
    elif fault == "owner":
        os.chown(folder, 12345, -1)
    else:
        folder.rename(cache / "elsewhere")
        folder.symlink_to(cache / "elsewhere")
    appliance = launch(tmp_path, config)
    assert appliance.template is None
    assert warnings(appliance) == ["appliance.instant-refused"]
    environ = {**os.environ, "IMGTOOLS_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [IMGTOOLS, "appliance", "build"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert done.stderr.count("\n") == 1
    assert "others may change it" in done.stderr


def test_another_qemu_needs_another_template(config: Config, tmp_path: Path) -> None:
    """An upgrade: the same program with another time."""
    handle = new_handle("stock")
    copy = tmp_path / "qemu-system-x86_64"
    shutil.copyfile(handle.get_hv(), copy)
    facts = dict(instant.current(config).record["identity"])
    assert template.find(config, facts)
    facts["qemu"] = template.file_stat(copy)
    with pytest.raises(NoTemplateError, match="no template for this host"):
        template.find(config, facts)


def test_a_tmpdir_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    a_disk(tmp_path)
    words = [IMGTOOLS, "filesystems", "--engine", "appliance", "--format", "raw"]
    done = subprocess.run(
        [*words, "-a", str(tmp_path / "disk.raw")],
        env={**os.environ, "TMPDIR": "/proc/self"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "TMPDIR" in done.stderr


# --- building ------------------------------------------------------------------------------------


def start_build(cache: Path) -> subprocess.Popen[str]:
    # A shell leaves SIGINT ignored for what it starts in the background, pytest perhaps.
    return subprocess.Popen(
        ["env", "--default-signal=INT", IMGTOOLS, "appliance", "build"],
        env={**os.environ, "IMGTOOLS_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(cache: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(cache.glob(f"instant/.partial-*/{pattern}")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "instant").iterdir() if path.name != "lock")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with just enough room for a build to begin."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1700m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(MIB))


def test_a_disk_that_fills_during_the_build(small_disk: Path) -> None:
    with start_build(small_disk) as child:
        wait_for(small_disk, "ram")
        with pytest.raises(OSError, match="No space"):
            fill_up(small_disk / "filler")
        _, errors = child.communicate(timeout=300)
    assert child.returncode == 5, errors
    assert len([line for line in errors.splitlines() if " s  " not in line]) == 1, errors
    assert left_in(small_disk) == []
    assert qemu_processes(small_disk) == set()
    (small_disk / "filler").unlink()


def test_a_disk_without_room_is_refused_before_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=True)
    try:
        with start_build(folder) as child:
            _, errors = child.communicate(timeout=60)
        assert child.returncode == 5
        assert "MiB needed (IMGTOOLS_CACHE_DIR)" in errors
        assert errors.count("\n") == 1
    finally:
        subprocess.run(["umount", folder], check=True)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with start_build(tmp_path) as child:
        wait_for(tmp_path, "ram")
        assert qemu_processes(tmp_path) != set()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "imgtools: interrupted"
    assert left_in(tmp_path) == []
    assert qemu_processes(tmp_path) == set()


def test_two_builds_at_once_make_one_template(tmp_path: Path) -> None:
    with start_build(tmp_path) as first:
        wait_for(tmp_path, "kernel")
        with start_build(tmp_path) as second:
            _, waited = second.communicate(timeout=300)
        first.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "another build is running" in waited
    names = left_in(tmp_path)
    assert len(names) == 1
    assert names[0].startswith(("tcg-", "kvm-"))
