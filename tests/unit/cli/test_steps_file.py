"""Steps of ``apply``: lines and YAML, parsed by each command's own options; errors say where."""

from __future__ import annotations

from typing import Any

import pytest

from imgtools.cli.steps_file import KNOWN, read_lines, read_yaml, steps_of
from imgtools.errors import UsageError
from imgtools.guest import steps
from imgtools.guest.owners import parse_owner
from imgtools.guest.tree import GuestTree, Mount
from tests.unit.memory_tree import MemoryTree

pytestmark = pytest.mark.unit


def from_lines(text: str) -> list[Any]:
    return [one.step for one in steps_of(read_lines(text.encode(), "f"))]  # type: ignore[attr-defined]


def from_yaml(text: str) -> list[Any]:
    return [one.step for one in steps_of(read_yaml(text.encode(), "f"))]  # type: ignore[attr-defined]


LINES = r"""
# a comment
write /etc/motd --content 'two  words'   # behind a step
write /bin/x --content "" --mode 0755 --owner alice:
chmod -R u+x,go-w /srv /opt
chown 0:0 "/with space"
mkdir -p --mode 0700 /a/b
rm -rf /tmp/x
ln -s ../target /link
mv /a /b /c
touch --date @5 /t
truncate -s 1K /t
append-line /etc/hosts '10.0.0.5 db' '#no comment'
edit /etc/fstab -b .orig -e 's/a b/c/'
"""


def test_lines_are_commands_as_typed() -> None:
    found = from_lines(LINES)
    assert [type(one).__name__ for one in found] == [
        *("Write", "Write", "Chmod", "Chmod", "Chown", "Mkdir", "Remove", "Link", "Move", "Move"),
        *("Touch", "Truncate", "AppendLine", "AppendLine", "Edit"),
    ]
    assert found[0].content.data == b"two  words\n"
    assert found[1] == steps.Write(
        path=b"/bin/x", content=steps.Content(data=b""), mode="0755", owner="alice:"
    )
    assert found[3] == steps.Chmod(path=b"/opt", mode="u+x,go-w", recursive=True)
    assert found[4].path == b"/with space"
    assert found[7] == steps.Link(target=b"../target", path=b"/link")
    assert found[9] == steps.Move(path=b"/b", to=b"/c/")
    assert (found[10].when_ns, found[11].size) == (5 * 10**9, 1024)
    assert found[13].line == "#no comment"
    assert found[14].transform(b"/etc/fstab", b"a b\n") == b"c\n"


def test_only_a_line_break_ends_a_line() -> None:
    text = "append-line /f 'form\x0cfeed \u2028 \x85 \x1c'\r\nrm /x\r\n"
    found = from_lines(text)
    assert found[0].line == "form\x0cfeed \u2028 \x85 \x1c"
    assert found[1].path == b"/x"


def test_names_that_are_no_utf8() -> None:
    (found,) = steps_of(read_lines(b"rm '/\xff\xfe'", "f"))
    assert found.step.path == b"/\xff\xfe"  # type: ignore[attr-defined]


YAML = """
- write: {path: /etc/motd, content: web01, mode: "0600"}
- chmod: ["0600", /x, -R]
- chmod: {path: /x, mode: u+x, recursive: true}
- chown: {owner: "alice:", paths: [/a, /b]}
- rm: /single
- rm: {paths: [/a, /b], force: true, recursive: false}
- ln: {link: /etc/localtime, target: /usr/share/zoneinfo/UTC, symbolic: true}
- mv: {to: /b, path: /a}
- append-line: {lines: [one, -e], file: /etc/hosts}
- edit: {path: /f, expr: [s/a/b/, s/b/c/]}
- edit: {path: /f, e: s/a/z/}
- copy-in: {dir: /srv, files: [/etc/hostname]}
- rm: {path: --strange}
"""


def test_yaml_is_the_same_commands() -> None:
    with pytest.raises(UsageError, match=r"f, step 13: '--strange': not an absolute path"):
        from_yaml(YAML)
    found = from_yaml(YAML.rpartition("- rm")[0])
    assert found[0].content.data == b"web01\n"
    assert found[0].mode == "0600"
    assert found[1] == steps.Chmod(path=b"/x", mode="0600", recursive=True)
    assert found[2] == steps.Chmod(path=b"/x", mode="u+x", recursive=True)
    assert found[4].owner == "alice:"
    assert found[5].path == b"/single"
    assert found[7] == steps.Remove(path=b"/b", force=True)
    # by their names, whatever their order
    assert found[8] == steps.Link(target=b"/usr/share/zoneinfo/UTC", path=b"/etc/localtime")
    assert found[9] == steps.Move(path=b"/a", to=b"/b")
    assert [one.line for one in found[10:12]] == ["one", "-e"]
    assert found[12].transform(b"/f", b"a\n") == b"c\n"
    assert found[13].transform(b"/f", b"a\n") == b"z\n"
    assert found[14].path == b"/srv"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rm /x\n\nrm 'open", "f, line 3: No closing quotation"),
        ("rm /x\nreboot", "f, line 2: no such step: reboot"),
        ("recover /x", "f, line 1: no such step: recover"),
        ("apply other", "f, line 1: no such step: apply"),
        ("imgtools rm /x", "f, line 1: no such step: imgtools"),
        ("rm", "f, line 1: which file?"),
        ("rm x", "f, line 1: 'x': not an absolute path"),
        ("rm --nope /x", "f, line 1: No such option"),
        ("rm -a image.qcow2 /x", "f, line 1: No such option"),
        ("rm --dry-run /x", "f, line 1: No such option"),
        ("rm --help", "f, line 1: --help is no step"),
        ("chmod 9 /x", "f, line 1: 9: no file mode"),
        ("edit /x -e s/a", "f, line 1: -e: no closing /"),
        ("write /x", "f, line 1: name one file, and its content once"),
        ("write /x --from /no/such/file", "f, line 1: --from /no/such/file: no such file"),
        ("write /x -", "f, line 1: a step cannot read stdin"),
        ("tar-in - /x", "f, line 1: a step cannot read stdin"),
        ("copy-in /no/such/file /x", "f, line 1: /no/such/file: no such file on this host"),
        ("truncate -s 1Q /x", "f, line 1: 1Q: no size"),
        ("touch --date soon /x", "f, line 1: soon: no time"),
    ],
)
def test_errors_of_lines_say_where(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_lines(text)
    assert refused.value.message.startswith(why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rm: /x", "f: not a list of steps"),
        ("", "f: not a list of steps"),
        ("- [", "f: while parsing"),
        ("- rm /x", "f, step 1: not one command"),
        ("- {rm: /x, mkdir: /y}", "f, step 1: not one command"),
        ("- rm: /x\n- chmod: [0600, /x]", "f, step 2: 384 is not text"),
        ("- rm: {paths: [/x, null]}", "f, step 1: None is not text"),
        ("- rm: {paths: [/x], colour: red}", "f, step 1: No such option"),
        ("- nope: {path: /x}", "f, step 1: no such step: nope"),
        ("- rm: !!python/object/apply:os.system [reboot]", "f: could not determine a constructor"),
        ("- rm: \x01", "f: unacceptable character"),
    ],
)
def test_errors_of_yaml_say_where(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_yaml(text)
    assert refused.value.message.startswith(why)
    assert "\n" not in refused.value.message


def test_a_billion_laughs_are_not_shown() -> None:
    bomb = "- rm: &a [x,x,x,x,x,x,x,x,x]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"- rm: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    with pytest.raises(UsageError, match=r"f, step 2: .* is not text"):
        from_yaml(bomb)


def test_every_command_that_changes_files_is_a_step() -> None:
    from imgtools.cli.main import cli

    changing = set()
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        if hasattr(command.callback, "imgtools_step"):
            changing.add(name)
    assert changing == {*KNOWN, "apply", "customize"}


def test_a_step_that_depends_on_another_is_not_idle() -> None:
    """What the first makes is not there yet: only doing them all tells."""
    tree = GuestTree([Mount(b"/", "/dev/sda1", MemoryTree({b"etc": {b"passwd": b""}}))])
    made = steps_of(read_lines(b"mkdir /new\nchown alice /new/x\nrm -f /gone", "f"))
    assert [one.idle(tree) for one in made] == [False, False, True]
    assert parse_owner(tree, "0") == (0, None)
