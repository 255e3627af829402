"""The options that name disks: order of --format, positional form, URIs, keys."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imgtools.cli.options import DiskArguments, disk_options, make_request
from imgtools.errors import UsageError
from imgtools.model.disks import DiskRequest

pytestmark = pytest.mark.unit


def parse(
    *words: str, positional: str = "first", stdin: bytes = b""
) -> tuple[DiskArguments, tuple[str, ...]]:
    seen: list[tuple[DiskArguments, tuple[str, ...]]] = []

    @click.command()
    @disk_options(positional=positional)  # type: ignore[arg-type]
    @click.argument("args", nargs=-1)
    def command(disks: DiskArguments, args: tuple[str, ...]) -> None:
        seen.append((disks, args))

    result = CliRunner().invoke(command, list(words), input=stdin, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return seen[0]


def test_format_and_blocksize_apply_to_what_follows() -> None:
    disks, _ = parse(
        "-a", "one", "--format", "qcow2", "-a", "two", "--blocksize=4096", "-a", "three",
        "--format=auto", "--add", "four",
    )  # fmt: skip
    assert disks.disks == (
        DiskRequest(path=Path("one")),
        DiskRequest(path=Path("two"), format="qcow2"),
        DiskRequest(path=Path("three"), format="qcow2", block_size=4096),
        DiskRequest(path=Path("four"), block_size=4096),
    )


def test_vhd_is_vpc() -> None:
    disks, _ = parse("--format=vhd", "-a", "x")
    assert disks.disks[0].format == "vpc"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-a", "x", "-d", "y"), "cannot be mixed"),
        (("-a", "x", "--format=raw"), "applies to none"),
        (("--format=tar", "-a", "x"), "unknown image format"),
        (("-a", ""), "is empty"),
        (("-a", "gopher://x/y"), "unknown kind of URI"),
        (("-a", "file://host/x"), "three slashes"),
        (("-a", "x", "--key", "abc"), "expected ID:key:TEXT"),
        (("-a", "x", "--key", "all:clevis:y"), "only key and file"),
        (("-a", "x", "--key", "all:file:/no/such/file"), "cannot read"),
    ],
)
def test_nonsense_is_a_usage_error(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse(*words)


def test_a_key_never_shows_in_an_error_or_a_repr() -> None:
    with pytest.raises(UsageError) as caught:
        parse("-a", "x", "--key", "hunter2")
    assert "hunter2" not in caught.value.message
    disks, _ = parse("-a", "x", "--key", "all:key:hunter2")
    assert "hunter2" not in repr(disks)
    assert disks.keys[0].secret == b"hunter2"


def test_keys_from_stdin_are_its_lines() -> None:
    disks, _ = parse("-a", "x", "--keys-from-stdin", stdin=b"one\r\n\ntwo words \n")
    assert [key.secret for key in disks.keys] == [b"one", b"two words "]


def test_the_first_word_names_a_file_or_a_domain(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    disks, rest = parse(str(image), "/etc")
    assert (disks.disks, rest) == ((DiskRequest(path=image),), ("/etc",))
    disks, rest = parse("web01", "/etc")
    assert (disks.domains, rest) == (("web01",), ("/etc",))
    disks, rest = parse("-a", str(image), "/etc", "/var")
    assert (disks.disks[0].path, rest) == (image, ("/etc", "/var"))


def test_all_words_can_name_disks(tmp_path: Path) -> None:
    images = [tmp_path / "a", tmp_path / "b"]
    disks, rest = parse(*map(str, images), positional="all")
    assert ([disk.path for disk in disks.disks], rest) == (images, ())
    disks, _ = parse("web01", "web02", positional="all")
    assert disks.domains == ("web01", "web02")
    with pytest.raises(UsageError, match="cannot be mixed"):
        parse(str(images[0]), "web01", positional="all")


@pytest.mark.parametrize(
    "uri",
    ["nbd://host/export", "nbd+unix:///e?socket=/s", "ssh://u@h/p", "https://h/x.qcow2"],
)
def test_uris_stay_as_they_are(uri: str) -> None:
    assert make_request(uri).uri == uri


def test_a_file_uri_is_a_path() -> None:
    assert make_request("file:///srv/a%20b.img").path == Path("/srv/a b.img")
