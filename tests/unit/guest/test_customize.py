"""The options of customize: what values mean, in which order they run, what is refused at once."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize import package_commands, package_output, repository
from imgtools.guest.customize.base import Custom, Row, Setting, Settings
from imgtools.guest.customize.command_steps import Command, Packages
from imgtools.guest.customize.commands_file import given, read_commands
from imgtools.guest.customize.file_steps import Copy, Delete, Scrub, Upload
from imgtools.guest.customize.plan import Customize, Given, plan
from imgtools.guest.customize.table import GROUPS, OPTIONS
from imgtools.guest.steps import AppendLine, Chmod, Chown, Done, Link, Mkdir, Move, Step, Write
from imgtools.guest.steps.base import Always
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles
from tests.unit.guest.guests import Files, guest_tree

pytestmark = pytest.mark.unit

X86_64, I386, AARCH64 = 62, 3, 183


def elf(machine: int) -> bytes:
    """The beginning of a program."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine)


def steps(*options: tuple[str, str]) -> list[Step]:
    return [one.step for one in plan(given(options)).steps]


def test_options_run_in_the_order_of_the_command_line() -> None:
    found = plan(
        given([("write", "/a:1"), ("run-command", "true"), ("write", "/b:2"), ("chmod", "0600:/a")])
    )
    assert [one.where for one in found.steps] == ["--write", "--run-command", "--write", "--chmod"]
    assert [(one.verb, one.shown) for one in found.steps] == [
        ("written", b"/a"),
        ("ran", b"true"),
        ("written", b"/b"),
        ("changed", b"/a"),
    ]


def test_steps_that_are_last_come_after_the_others_and_settings_reach_all_before_them() -> None:
    class Noted(Always):
        def __init__(self, text: str) -> None:
            self.text = text

        def perform(self, guest: GuestFiles) -> list[Done]:
            raise NotImplementedError(self.text, guest)

    def tuned(step: Step, settings: Settings) -> Step:
        assert isinstance(step, Noted)
        return Noted(step.text + settings.get("crypto", "?"))

    rows: list[Row] = [
        Custom(name="end", metavar="X", help="", parse=Noted, tuned=tuned, last=True),
        Custom(name="now", metavar="X", help="", parse=Noted, tuned=tuned),
        Setting(name="crypto", metavar="X", help=""),
    ]
    words = [("end", "1"), ("now", "2"), ("crypto", "no"), ("end", "3"), ("crypto", "yes")]
    found = plan([Given(name=n, value=v, where=n) for n, v in words], rows)
    texts = [one.step.text for one in found.steps if isinstance(one.step, Noted)]
    assert texts == ["2yes", "1yes", "3yes"]


def test_what_values_mean(tmp_path: Path) -> None:
    file = tmp_path / "a:b"
    file.write_bytes(b"x")
    found = steps(
        ("append-line", "/f:10.0.0.1 a:b"),
        ("chmod", "0644:/f:g"),
        ("chown", "0:wheel:/f:g"),
        ("copy", "/a:/b"),
        ("delete", "/var/log/*.log"),
        ("mkdir", "/d"),
        ("move", "/a:/b"),
        ("scrub", "/s"),
        ("upload", f"{file}:/u"),
        ("write", "/w:a:b\n"),
        ("run-command", "echo a:b"),
        ("install", "a, b,"),
        ("update", ""),
    )
    assert found[:9] == [
        AppendLine(path=b"/f", line="10.0.0.1 a:b", create=True),
        Chmod(path=b"/f:g", mode="0644"),
        Chown(path=b"/f:g", owner="0:wheel"),
        Copy(path=b"/a", to=b"/b"),
        Delete(pattern=b"/var/log/*.log"),
        Mkdir(path=b"/d", parents=True),
        Move(path=b"/a", to=b"/b"),
        Scrub(path=b"/s"),
        Upload(file=file, to=b"/u"),
    ]
    assert isinstance(found[9], Write)
    assert (found[9].path, found[9].content.data) == (b"/w", b"a:b\n")
    assert found[10:] == [
        Command(command="echo a:b"),
        Packages(task="install", names=("a", "b")),
        Packages(task="update"),
    ]
    [links] = plan(given([("link", "t:/a:/b")])).steps
    assert links.shown == b"/a"
    assert [one.path for one in links.step.links] == [b"/a", b"/b"]  # type: ignore[attr-defined]
    assert all(isinstance(one, Link) and one.force for one in links.step.links)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("write", "/a", "--write: expected FILE:CONTENT"),
        ("write", "a:b", "--write: 'a': not an absolute path"),
        ("write", "/a\0:b", "--write: a path holds no NUL"),
        ("append-line", "/a:b\nc", "--append-line: a line holds no line break"),
        ("chmod", "755:/a", "--chmod: 755: is that octal?"),
        ("chmod", "0999:/a", "--chmod: 0999: no file mode"),
        ("chown", "0:/a", "--chown: expected USER:GROUP:PATH"),
        ("copy", "/a:b", "--copy: 'b': not an absolute path"),
        ("copy-in", "x:y", "--copy-in: expected LOCALPATH:DIR"),
        ("copy-in", "/nonexistent/x:/y", "--copy-in: /nonexistent/x: no such file on this host"),
        ("edit", "/a:s/x/", "--edit: "),
        ("link", "/target", "--link: expected TARGET:LINK"),
        ("link", "/target::/b", "--link: expected TARGET:LINK"),
        ("tar-in", "/nonexistent:/y", "--tar-in: /nonexistent: no such file on this host"),
        ("upload", "/nonexistent:/y", "--upload: /nonexistent: no such file on this host"),
        ("run", "/nonexistent", "--run: /nonexistent: no such file on this host"),
        ("run-command", " ", "--run-command: names no command"),
        ("install", ",", "--install: names no package"),
        ("install", "--force", "--install: '--force': is no name of a package"),
        ("repository", "/nonexistent", "--repository: /nonexistent: no such folder"),
        ("repository", "/proc/self/task", "--repository: /proc/self/task: holds no .deb, .rpm or"),
    ],
)
def test_a_bad_value_is_named_by_its_option(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(given([(name, value)]))
    assert caught.value.message.startswith(said), caught.value.message


def test_only_packages_from_afar_need_a_network(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"")

    def network(*options: tuple[str, str]) -> bool:
        return plan(given(options)).network

    folder = ("repository", str(tmp_path))
    assert not network(("run-command", "true"), ("uninstall", "x"), ("write", "/a:b"))
    assert network(("install", "x"))
    assert network(("update", ""))
    assert not network(("install", "x"), folder)
    assert not network(("install", "x"), ("no-network", ""))
    assert network(("run-command", "true"), ("network", ""))
    assert network(folder, ("install", "x"), ("network", ""))
    with pytest.raises(UsageError, match="cannot be used together"):
        plan(given([("network", ""), ("no-network", "")]))
    [step] = steps(("install", "x"), folder)
    assert step == Packages(task="install", names=("x",), folder=tmp_path)


COMMANDS = """
# a comment
  write /etc/motd:hello  world

edit /some/file:\\
  s/^OPT=.*/OPT=ok/
update
#write /not:this
run-command echo "a  b" # no comment
write /last:\\"""


def test_a_file_of_commands_is_read_as_virt_customize_does(tmp_path: Path) -> None:
    path = tmp_path / "commands"
    path.write_text(COMMANDS)
    found = read_commands(path)
    assert [(one.name, one.value) for one in found] == [
        ("write", "/etc/motd:hello  world"),
        ("edit", "/some/file:\n  s/^OPT=.*/OPT=ok/"),
        ("update", ""),
        ("run-command", 'echo "a  b" # no comment'),
        ("write", "/last:\n"),
    ]
    assert [one.where for one in found][:2] == [f"{path}, line 3: write", f"{path}, line 5: edit"]
    mixed = given([("mkdir", "/a"), ("commands-from-file", str(path)), ("mkdir", "/z")])
    assert [one.name for one in mixed][:2] == ["mkdir", "write"]
    assert mixed[-1].value == "/z"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mkdir /a\nno-such /x", "line 2: no-such: no such command"),
        ("--mkdir /a", "line 1: --mkdir: no such command"),
        ("commands-from-file x", "line 1: commands-from-file: no such command"),
        ("update now", "line 1: update: takes no value"),
        ("mkdir", "line 1: mkdir: expected DIR"),
        ("\n\nchmod 755:/a", "line 3: chmod: 755: is that octal?"),
    ],
)
def test_a_bad_line_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "commands"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        plan(given([("commands-from-file", str(path))]))
    assert caught.value.message.startswith(f"{path}, {said}"), caught.value.message


def test_a_file_of_commands_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="--commands-from-file: /nonexistent: No such file"):
        given([("commands-from-file", "/nonexistent")])


def guest(os_release: str, machine: int = X86_64, **more: bytes) -> GuestTree:
    files: dict[str, bytes | str | None] = {
        "bin/bash": elf(machine),
        "etc/os-release": os_release.encode(),
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "etc/debian_version": b"12.1\n",
    }
    if "ID=debian" not in os_release:
        del files["etc/debian_version"]
    return guest_tree({**files, **{name.replace("_", "/"): text for name, text in more.items()}})


DEBIAN = "ID=debian\nVERSION_ID=12\n"


@pytest.fixture
def x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose kernel runs i386, too."""
    import os

    uname = os.uname()
    found = os.uname_result((*tuple(uname)[:4], "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: found)


@pytest.mark.usefixtures("x86_64")
def test_programs_of_another_architecture_are_refused_before_anything_is_done() -> None:
    found = Customize(steps=plan(given([("write", "/a:b"), ("run-command", "true")])).steps)
    assert not found.idle(guest(DEBIAN))
    assert not found.idle(guest(DEBIAN, I386))
    with pytest.raises(GuestOperationError) as caught:
        found.idle(guest(DEBIAN, AARCH64))
    assert caught.value.message == (
        "--run-command: programs of the guest are for aarch64 and do not run on this host (x86_64)"
    )
    with pytest.raises(GuestOperationError, match="--run-command: no program of Linux"):
        found.idle(guest_tree({"etc/os-release": b"ID=debian\n"}))


@pytest.mark.usefixtures("x86_64")
@pytest.mark.parametrize(
    ("os_release", "manager"),
    [
        (DEBIAN, "apt"),
        ("ID=ubuntu\nVERSION_ID=22.04\n", "apt"),
        ("ID=raspbian\nID_LIKE=debian\nVERSION_ID=12\n", "apt"),
        ("ID=alpine\nVERSION_ID=3.19.1\n", "apk"),
        ("ID=arch\n", "pacman"),
        ("ID=opensuse-leap\nVERSION_ID=15.5\n", "zypper"),
        ("ID=rocky\nVERSION_ID=9.3\n", "dnf"),
        ("ID=centos\nVERSION_ID=7\n", "yum"),
        ("ID=fedora\nVERSION_ID=39\n", "dnf"),
    ],
)
def test_the_package_manager_is_the_distributions(os_release: str, manager: str) -> None:
    tree = guest(os_release, usr_bin_dnf=b"")
    assert package_commands.manager_of(tree, "--install") == manager


@pytest.mark.usefixtures("x86_64")
@pytest.mark.parametrize(
    ("os_release", "said"),
    [
        ("ID=gentoo\nPRETTY_NAME=Gentoo\n", "--install: the guest is Gentoo: portage is not"),
        ("ID=acme\nPRETTY_NAME='Acme 1'\n", "--install: the guest is Acme 1: its package manager"),
    ],
)
def test_packages_of_a_distribution_without_a_manager_are_refused(
    os_release: str, said: str
) -> None:
    found = Customize(steps=plan(given([("write", "/a:b"), ("install", "x")])).steps)
    with pytest.raises(GuestOperationError) as caught:
        found.idle(guest(os_release))
    assert caught.value.message.startswith(said), caught.value.message


@pytest.mark.usefixtures("x86_64")
def test_a_folder_of_the_wrong_packages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-1-1.noarch.rpm").write_bytes(b"")
    found = Customize(steps=plan(given([("install", "x"), ("repository", str(tmp_path))])).steps)
    with pytest.raises(GuestOperationError, match=r"holds no \.deb files for the guest"):
        found.idle(guest(DEBIAN))
    with pytest.raises(GuestOperationError, match=r"zypper, pacman, not with apk"):
        found.idle(guest("ID=alpine\nVERSION_ID=3.19.1\n"))


def test_names_of_packages_are_words_of_the_script() -> None:
    for manager in ("apk", "apt", "dnf", "pacman", "urpmi", "xbps", "yum", "zypper"):
        for task in ("install", "uninstall"):
            script = package_commands.script(manager, task, ["a", "b;reboot"])  # type: ignore[arg-type]
            assert script.startswith(b"set -e\n")
            assert b" a 'b;reboot'" in script
            assert script.count(b"reboot") == 1
        assert b"{}" not in package_commands.script(manager, "update")


def test_rpm_files_without_an_index_are_named_by_their_packages(tmp_path: Path) -> None:
    for name in ("foo-1.0-1.el9.noarch.rpm", "foo-bar-2-3.x86_64.rpm", "odd.rpm"):
        (tmp_path / name).write_bytes(b"")
    find = repository.rpm_files
    assert find(tmp_path, "/w", ["foo-bar", "foo"]) == [
        "/w/packages/foo-bar-2-3.x86_64.rpm",
        "/w/packages/foo-1.0-1.el9.noarch.rpm",
    ]
    assert len(find(tmp_path, "/w", None)) == 3
    with pytest.raises(GuestOperationError, match="has no package bar"):
        find(tmp_path, "/w", ["foo", "bar"])
    (tmp_path / "foo-1.1-1.el9.noarch.rpm").write_bytes(b"")
    with pytest.raises(GuestOperationError, match=r"which of foo-1.0-1\S+rpm, foo-1.1-1\S+rpm\?"):
        find(tmp_path, "/w", ["foo"])


def test_what_is_a_package_for_which_manager(tmp_path: Path) -> None:
    names = ("a.deb", "a-1-1.x86_64.rpm", "a-1-1.src.rpm", "a-1-1-any.pkg.tar.zst", "b.pkg.tar")
    for name in (*names, "a-1-1-any.pkg.tar.zst.sig", "packages.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    found = repository.packages_in
    assert [path.name for path in found(tmp_path, "apt")] == ["a.deb"]
    assert [path.name for path in found(tmp_path, "zypper")] == ["a-1-1.x86_64.rpm"]
    assert [path.name for path in found(tmp_path, "pacman")] == [
        "a-1-1-any.pkg.tar.zst",
        "b.pkg.tar",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("E: Unable to locate package x", "done"), "E: Unable to locate package x"),
        (("No match for argument: x", "Error: Unable to find a match: x"), None),
        (("Error: Transaction failed", "Failed:", "x-1.noarch"), "Error: Transaction failed"),
        (("error: target not found: x",), None),
        (("No provider of 'x' found.", "Resolving"), "No provider of 'x' found."),
        (("killed",), None),
        ((), ""),
    ],
)
def test_the_reason_of_a_package_manager(lines: tuple[str, ...], reason: str | None) -> None:
    assert package_output.reason(lines) == (lines[-1] if reason is None else reason)


def test_a_first_step_that_cannot_work_says_so_and_a_later_one_may_depend_on_it() -> None:
    files: Files = {"etc/passwd": b""}
    later = Customize(steps=plan(given([("mkdir", "/d"), ("truncate", "/d/x")])).steps)
    assert not later.idle(guest_tree(files))
    first = Customize(steps=plan(given([("truncate", "/d/x"), ("mkdir", "/d")])).steps)
    with pytest.raises(GuestOperationError, match=r"^--truncate: /d"):
        first.idle(guest_tree(files))


def test_nothing_to_do_is_known_without_a_launch() -> None:
    found = Customize(
        steps=plan(given([("delete", "/no/*"), ("mkdir", "/etc"), ("chmod", "0644:/etc/x")])).steps
    )
    assert found.idle(guest_tree({"etc/x": b"", "no/": None}))
    assert not found.idle(guest_tree({"etc/x": b"", "no/y": b""}))


def test_every_option_has_help_and_a_name_of_its_own() -> None:
    names = [row.name for row in OPTIONS]
    assert len(names) == len(set(names))
    for title, rows in GROUPS:
        assert title
        assert rows
    for row in OPTIONS:
        assert row.help.endswith((".", "…")), row.name
