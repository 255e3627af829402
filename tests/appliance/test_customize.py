"""customize on real guests: every file option, programs, packages, all or nothing, read afresh."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fixtures.tree import elf
from tests.appliance.scratch import (
    PARTITION,
    Launches,
    assert_sound,
    content,
    found,
    is_there,
    members,
    read,
    state,
)
from tests.cli import Result, imgtools

pytestmark = pytest.mark.appliance


def customize(*words: str | Path, **environment: str) -> Result:
    """A run that must succeed."""
    done = imgtools("customize", *words, **environment)
    assert done.code == 0, done.stderr
    return done


def make_deb(folder: Path, name: str, *fields: str, postinst: str = "", content: str = "") -> None:
    """A package with /usr/bin/NAME."""
    tree = folder / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    control = [f"Package: {name}", "Version: 1.0", "Architecture: all"]
    control += ["Maintainer: Nobody <nobody@example.com>", *fields, "Description: a test"]
    (tree / "DEBIAN/control").write_text("\n".join(control) + "\n")
    if postinst:
        (tree / "DEBIAN/postinst").write_text(postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/bin" / name).write_text(content or f"#!/bin/sh\necho this is {name}\n")
    (tree / "usr/bin" / name).chmod(0o755)
    (folder / "debs").mkdir(exist_ok=True)
    words = ["dpkg-deb", "--root-owner-group", "-b", tree, folder / "debs" / f"{name}.deb"]
    subprocess.run(words, check=True, capture_output=True)


def installed(image: Path, name: str) -> bool:
    """Whether dpkg's database has it, by the inspection."""
    done = imgtools("inspect", "--json", "-a", image)
    guest = json.loads(done.stdout)["result"][0]
    return name in {one["name"] for one in guest["applications"]}


def test_every_file_option_in_the_order_of_the_command_line(disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/deep").write_text("deep")
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o2750)
    subprocess.run(["tar", "-C", folder, "-cf", tmp_path / "a.tar", "sub"], check=True)
    commands = tmp_path / "commands"
    commands.write_text("# last\nedit /srv/made:\\\n  s/FIRST/second/\nappend-line /srv/made:end\n")
    words = [
        *("--format", "raw", "-a", disk),
        *("--write", "/srv/made:FIRST", "--append-line", "/srv/made:10.0.0.1 a:b"),
        *("--commands-from-file", commands, "--append-line", "/srv/new:one line"),
        *("--copy", "/srv/made:/srv/copied", "--copy", "/srv/deep:/srv/deeper"),
        *("--copy", "/srv/kept:/srv/deeper", "--move", "/srv/copied:/srv/moved"),
        *("--chmod", "0604:/srv/moved", "--chmod", "o+w:/srv/moved"),
        *("--chown", "bob:10:/srv/moved"),
        *("--copy-in", f"{folder}:/srv", "--tar-in", f"{tmp_path / 'a.tar'}:/srv/deep"),
        *("--mkdir", "/srv/x/y/z", "--touch", "/srv/x/touched"),
        *("--link", "../etc/hostname:/srv/replaced:/srv/second"),
        *("--upload", f"{script}:/srv/x", "--upload", f"{script}:/srv/x/named"),
        *("--truncate", "/etc/app/set-id", "--delete", "/etc/app/hard-*", "--delete", "/no/*"),
        *("--scrub", "/etc/app/climbing", "--truncate-recursive", "/links"),
    ]
    before = state(disk)
    inode = found(disk, "/etc/app/climbing").inode
    block = content(disk, "/etc/app/climbing")
    dry = json.loads(customize("-n", "--json", *words).stdout)["result"]
    assert state(disk) == before
    real = json.loads(customize("--json", *words).stdout)["result"]
    assert (dry["committed"], real["committed"]) == (False, True)
    assert dry["done"] == real["done"]
    assert [(one["path"], one["kind"]) for one in dry["changes"]] == [
        (one["path"], one["kind"]) for one in real["changes"]
    ]

    assert content(disk, "/srv/made") == b"second\n10.0.0.1 a:b\nend\n"
    assert content(disk, "/srv/new") == b"one line\n"
    assert not is_there(disk, "/srv/copied")
    assert content(disk, "/srv/moved") == content(disk, "/srv/made")
    assert (found(disk, "/srv/moved").mode, found(disk, "/srv/moved").owner) == (0o606, (1000, 10))
    assert found(disk, "/srv/deeper").mode == 0o750
    assert content(disk, "/srv/deeper/kept") == b"kept\n"
    assert found(disk, "/srv/deeper/kept").inode != found(disk, "/srv/kept").inode
    assert content(disk, "/srv/local/sub/deep") == content(disk, "/srv/deep/sub/deep") == b"deep"
    assert found(disk, "/srv/x/y/z").mode == 0o755
    assert content(disk, "/srv/x/touched") == b""
    there = members(disk, "/srv")
    assert there["./replaced"].linkname == there["./second"].linkname == "../etc/hostname"
    for name in "/srv/x/script.sh", "/srv/x/named":
        assert content(disk, name) == b"#!/bin/sh\n"
        owner = (script.stat().st_uid, script.stat().st_gid)
        assert (found(disk, name).mode, found(disk, name).owner) == (0o2750, owner)
    assert (found(disk, "/etc/app/set-id").mode, content(disk, "/etc/app/set-id")) == (0o6755, b"")
    for name in "hard-1", "hard-2", "climbing":
        assert not is_there(disk, f"/etc/app/{name}")
    assert block == b"port 80\n"
    assert content(disk, f"<{inode}>") != block  # what was scrubbed is not even in its old block
    assert content(disk, "/etc/hostname")  # links were not followed by --truncate-recursive
    assert_sound(disk)
    assert list(disk.parent.iterdir()) == [disk]


SCRIPT = """\
#!/bin/bash
set -e
[[ $0 == /.imgtools-*/"a script.sh" && $PWD == / && $(id -u) == 0 && $HOME == /root ]]
touch /home/by-script /boot/efi/by-script
mount | sort > /root/mounts
ischroot
systemctl enable --quiet cron
sleep 1000 &
"""


def test_programs_of_the_guest(debian: Path, tmp_path: Path) -> None:
    script = tmp_path / "a script.sh"
    script.write_text(SCRIPT)
    plain = tmp_path / "plain"
    plain.write_text("echo plain $0 | tr -d 0-9a-f > /root/plain\n")
    commands = tmp_path / "commands"
    commands.write_text("# two\nrun-command echo 'a  b' >> /root/order\nwrite /root/last:x\n")
    identity = "systemd-machine-id-setup; cp /etc/machine-id /root/id; echo hostile > /run/left; "
    identity += "mkdir -p /var/lib/dbus; cp /etc/machine-id /var/lib/dbus/machine-id; "
    identity += "head -c 512 /dev/zero > /var/lib/systemd/random-seed; umask >> /root/order"
    done = customize(
        *("-v", "-a", debian, "--write", "/etc/machine-id:uninitialized\n"),
        *("--delete", "/var/lib/dbus/machine-id", "--delete", "/var/lib/systemd/random-seed"),
        *("--run-command", "echo 1 >> /root/order; echo said; ls /root/last 2>/dev/null; true"),
        *("--run", script, "--run", plain, "--run-command", identity),
        *("--commands-from-file", commands, "--no-logfile"),
    )
    assert "imgtools: running: echo 1 >> /root/order" in done.stderr
    assert "\n  said\n" in done.stderr
    assert read(debian, "/root/order") == b"1\n0022\na  b\n"
    assert read(debian, "/root/last") == b"x"
    assert read(debian, "/root/plain") == b"plin /.imgtools-/plin\n"
    mounts = [line.split()[:5:2] for line in read(debian, "/root/mounts").decode().splitlines()]
    points = {point: kind for _, point, kind in mounts}
    assert points["/"] == points["/boot"] == "ext4"
    assert (points["/home"], points["/boot/efi"], points["/run"]) == ("xfs", "vfat", "tmpfs")
    assert {"/dev", "/dev/pts", "/proc", "/sys"} < set(points)
    # what programs do not leave in a template
    assert len(read(debian, "/root/id")) == 33
    assert read(debian, "/etc/machine-id") == b"uninitialized\n"
    top = imgtools("ls", "-a", debian, "/").lines
    assert not [name for name in top if name.startswith(".imgtools")]
    for path in "/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed", "/run/left":
        assert imgtools("ls", "-a", debian, path).code == 6, path
    assert "builder.log" not in imgtools("ls", "-a", debian, "/tmp").lines
    for path in "/home/by-script", "/boot/efi/by-script":
        assert read(debian, path) == b""
    subprocess.run(["qemu-img", "check", "-q", debian], check=True)


def test_a_program_that_fails_leaves_the_image_as_it_was(debian: Path) -> None:
    before = state(debian)
    command = "echo out; echo '\033[31mwhy' >&2; rm -rf /etc/ssh; exit 3"
    done = imgtools("customize", "-a", debian, "--write", "/etc/motd:x", "--run-command", command)
    assert (done.code, done.stdout) == (6, b"")
    *talk, last = done.stderr.splitlines()
    assert talk[-2:] == ["  out", "  \\x1b[31mwhy"]
    assert "\x1b" not in done.stderr
    assert last.startswith("imgtools: --run-command: echo out; ")
    assert ": exit status 3: \\x1b[31mwhy -- it had no network" in last
    assert state(debian) == before


def test_packages_from_a_folder_of_this_host(debian: Path, tmp_path: Path) -> None:
    seed = "#!/bin/sh\nssh-keygen -A\nsystemd-machine-id-setup\n"
    make_deb(tmp_path, "hello-imgtools", "Depends: hello-library", postinst=seed)
    make_deb(tmp_path, "hello-library")
    make_deb(tmp_path, "never-asked-for")
    folder = tmp_path / "debs"
    sources = read(debian, "/etc/apt/sources.list")
    customize(
        *("-a", debian, "--repository", folder, "--install", "hello-imgtools"),
        *("--run-command", "hello-imgtools > /root/said"),
    )
    assert read(debian, "/root/said") == b"this is hello-imgtools\n"
    assert installed(debian, "hello-library")
    assert not installed(debian, "never-asked-for")
    assert read(debian, "/etc/apt/sources.list") == sources
    cached = imgtools("ls", "-a", debian, "/var/cache/apt/archives").lines
    assert not [name for name in cached if name.endswith(".deb")]

    customize("-a", debian, "--uninstall", "hello-imgtools")
    assert not installed(debian, "hello-imgtools")
    before = state(debian)
    done = imgtools("customize", "-q", "-a", debian, "--repository", folder, "--install", "none")
    assert done.code == 6
    assert "--install: install none: exit status 100: E: Unable to locate package" in done.stderr
    assert state(debian) == before


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The folder by HTTP on this host; the port."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_packages_by_the_network(debian: Path, tmp_path: Path) -> None:
    make_deb(tmp_path, "hello-imgtools")
    folder = tmp_path / "debs"
    control = subprocess.run(
        ["dpkg-deb", "-f", folder / "hello-imgtools.deb"], check=True, capture_output=True
    ).stdout
    package = (folder / "hello-imgtools.deb").read_bytes()
    digest = hashlib.sha256(package).hexdigest()
    index = f"Filename: ./hello-imgtools.deb\nSize: {len(package)}\nSHA256: {digest}\n"
    (folder / "Packages").write_bytes(control + index.encode())
    resolver = "/etc/resolv.conf"
    launches = Launches(tmp_path)
    with served(folder) as port:
        # qemu's user network has this host at this address
        source = f"deb [trusted=yes] http://169.254.2.2:{port} ./"
        customize(
            *("-a", debian, "--write", f"/etc/apt/sources.list:{source}\n"),
            *(
                "--delete",
                resolver,
                "--link",
                f"../run/systemd/resolve/stub-resolv.conf:{resolver}",
            ),
            *("--install", "hello-imgtools", "--run-command", f"cat {resolver} > /root/resolver"),
            **launches.environment,
        )
    assert launches.count() == 1
    assert installed(debian, "hello-imgtools")
    assert b"nameserver" in read(debian, "/root/resolver")
    assert members(debian, "/etc")["./resolv.conf"].linkname.endswith("/stub-resolv.conf")
    assert not [name for name in imgtools("ls", "-a", debian, "/etc").lines if "imgtools" in name]


def replace(disk: Path, local: Path, path: str) -> None:
    """Put a file of this host into the fixture "changing", by e2fsprogs's debugfs."""
    folder, _, name = path.rpartition("/")
    requests = f"cd {folder}\nrm {name}\nwrite {local} {name}\n"
    command = ["debugfs", "-w", "-f", "-", f"{disk}?offset={PARTITION}"]
    subprocess.run(command, check=True, capture_output=True, input=requests.encode())
    assert content(disk, path) == local.read_bytes()


def test_what_the_guest_cannot_do_is_refused_at_once(disk: Path, tmp_path: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    launches = Launches(tmp_path)
    release = tmp_path / "os-release"
    release.write_text("ID=acme\nPRETTY_NAME='Acme 1'\n")
    replace(disk, release, "/etc/os-release")
    before = state(disk)
    done = imgtools("customize", *raw, "--mkdir", "/x", "--install", "y", **launches.environment)
    assert (done.code, len(done.stderr.splitlines())) == (6, 1), done.stderr
    assert "--install: the guest is Acme 1: its package manager is not known" in done.stderr
    assert state(disk) == before

    program = tmp_path / "aarch64"
    program.write_bytes(elf(183))
    for name in "bash", "ls":
        replace(disk, program, f"/usr/bin/{name}")
    before = state(disk)
    for words in (
        ("--mkdir", "/x", "--run-command", "true"),
        ("--run", program),
        ("--install", "x"),
        ("--update",),
    ):
        done = imgtools("customize", *raw, *words, **launches.environment)
        assert (done.code, len(done.stderr.splitlines())) == (6, 1), done.stderr
        assert "programs of the guest are for aarch64 and do not run" in done.stderr
        assert "--firstboot-command" in done.stderr
    assert launches.count() == 0
    assert state(disk) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to do is named"),
        (("--mkdir", "/a", "more"), "what is more?"),
        (("--chmod", "755:/a"), "--chmod: 755: is that octal?"),
        (("--commands-from-file", "/nonexistent"), "--commands-from-file: /nonexistent: No such"),
        (("--network", "--no-network", "--mkdir", "/a"), "cannot be used together"),
        (("--memsize", "1", "--mkdir", "/a"), "--memsize"),
        (("--no-such", "x"), "No such option"),
    ],
)
def test_a_bad_command_line_is_one_line(words: tuple[str, ...], said: str, disk: Path) -> None:
    before = state(disk)
    done = imgtools("customize", "--format", "raw", "-a", disk, *words)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr
    assert state(disk) == before


def test_sysprep_customizes_what_it_has_emptied_and_then_removes_what_programs_made(
    debian: Path, tmp_path: Path
) -> None:
    customized = [
        *("--write", "/root/.bash_history:mine", "--write", "/etc/motd:template"),
        *("--run-command", "ssh-keygen -A; systemd-machine-id-setup; echo x > /var/log/dpkg.log"),
        *("--run-command", "cat /root/.bash_history > /root/seen"),
    ]
    dry = imgtools("sysprep", "-n", "--json", "-a", debian, *customized)
    assert dry.code == 0, dry.stderr
    record = tmp_path / "record.json"
    real = imgtools("sysprep", "--json", "-a", debian, *customized, "--report", record)
    assert real.code == 0, real.stderr
    said, done = (
        {one["name"]: one["actions"] for one in json.loads(run.stdout)["result"]["operations"]}
        for run in (dry, real)
    )
    assert said["customize"] == done["customize"]
    assert [one["verb"] for one in done["customize"]] == ["written", "written", "ran", "ran"]
    assert list(said) == list(done)
    assert done["machine-id"]
    assert done["ssh-hostkeys"]
    # the history that was there is gone, the one that was asked for is not
    assert read(debian, "/root/.bash_history") == read(debian, "/root/seen") == b"mine"
    assert read(debian, "/etc/machine-id") == b"uninitialized\n"
    assert not [name for name in imgtools("ls", "-a", debian, "/etc/ssh").lines if "_host_" in name]
    assert imgtools("ls", "-a", debian, "/var/log/dpkg.log").code == 6
    assert imgtools("sysprep", "--check", "-a", debian).code == 0

    named = ("--operations", "customize", "--hostname", "gold", "--mkdir", "/srv/gold")
    assert imgtools("sysprep", "-a", debian, *named).code == 0
    before = state(debian)
    for words in (["-n"], []):
        again = imgtools("sysprep", *words, "-a", debian, *named)
        assert (again.code, again.stdout) == (0, b"")
        assert "nothing to do" in again.stderr
        assert state(debian) == before
    failed = imgtools("sysprep", "-a", debian, "--run-command", "exit 7")
    assert failed.code == 6
    assert "operation customize: --run-command: exit 7: exit status 7" in failed.stderr
    assert "the image is as it was" in failed.stderr
    assert state(debian) == before
    off = imgtools("sysprep", "-a", debian, "--operations", "machine-id", "--write", "/a:b")
    assert (off.code, "the operation customize is not selected" in off.stderr) == (2, True)
    shown = imgtools("sysprep", "--help").text
    assert "Options of customize:" in shown
    assert "--run-command CMD" in shown
