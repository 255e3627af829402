"""log: what journalctl prints of the same files, and no end of damage survived."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from imgtools.guest.linux.journal import JournalDamagedError, JournalFile
from tests import journals
from tests.cli import imgtools
from tests.direct.crafted import make_ext4, write_guest

pytestmark = pytest.mark.direct


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's journals: an old archive, the system's and a user's, which overlap in time."""
    place = tmp_path_factory.mktemp("journals") / journals.MACHINE
    place.mkdir()
    found = journals.entries()
    parts = {
        "system@0000.journal": (found[:1000], {"SYSTEMD_JOURNAL_COMPACT": "0"}),
        "system.journal": (found[1000::2], {"SYSTEMD_JOURNAL_KEYED_HASH": "0"}),
        "user-1000.journal": (found[1001::2], {"SYSTEMD_JOURNAL_COMPACT": "1"}),
    }
    for name, (part, environment) in parts.items():
        journals.write(place / name, part, **environment)
    return place


@pytest.fixture(scope="module")
def guest(folder: Path) -> Path:
    root = folder.parent / "root"
    root.mkdir()
    write_guest(root)
    (root / "sparse").unlink()
    shutil.copytree(folder, root / "var/log/journal" / journals.MACHINE)
    return make_ext4(root, folder.parent / "guest.img", 128 << 20)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-u", "ssh"),
        ("-u", "nginx.service", "-u", "cron"),
        ("-u", "*n*"),
        ("-p", "err"),
        ("-p", "2..4"),
        ("-p", "info", "-u", "ssh"),
        ("-n", "25"),
        ("-b", "0"),
        ("-b", "-1", "-n", "10"),
        ("-b", "1"),
        ("-b", journals.BOOTS[1]),
        ("--since", "2023-11-15 01:00", "--until", "2023-11-15 02:00:30"),
        ("-S", "@1700170000"),
        ("--until", "2023-11-14"),
    ],
)
def test_journalctl_prints_the_same(options: tuple[str, ...], guest: Path, folder: Path) -> None:
    expected = journals.journalctl("--directory", folder, *options)
    expected = b"" if expected == b"-- No entries --\n" else expected
    done = imgtools("log", "-a", guest, *options)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == expected
    assert len(expected) > 200 or options[0] == "--until"


def test_json_has_every_field(guest: Path, folder: Path) -> None:
    done = imgtools("log", "--json", "-a", guest, "-n", "500")
    document = json.loads(done.stdout)
    assert (document["schema"], document["engine"]) == ("imgtools/log", "direct")
    entries = document["result"]["entries"]
    lines = subprocess.run(
        ["journalctl", "--directory", folder, "-o", "json", "-n", "500", "--all"],
        check=True, capture_output=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(entries) == len(lines) == 500
    for entry, line in zip(entries, lines, strict=True):
        expected = json.loads(line)
        assert str(entry["time_ns"] // 1000) == expected["__REALTIME_TIMESTAMP"]
        for name, value in expected.items():
            if not name.startswith("__") and isinstance(value, str):
                assert entry["fields"][name] == value


def test_nothing_of_a_guest_acts_on_the_terminal(guest: Path) -> None:
    text = imgtools("log", "-a", guest).stdout
    assert b"\x1b" not in text
    assert b"\x07" not in text


def test_a_text_log_where_there_is_no_journal(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_guest(root)
    (root / "sparse").unlink()
    (root / "var/log").mkdir(parents=True)
    (root / "var/log/messages").write_text("one\ntwo\nthree\n", encoding="utf-8")
    disk = make_ext4(root, tmp_path / "disk.img")
    assert imgtools("log", disk).stdout == b"one\ntwo\nthree\n"
    assert imgtools("log", "-n", "2", disk).stdout == b"two\nthree\n"
    result = json.loads(imgtools("log", "--json", disk).stdout)["result"]
    assert result["entries"] == [{"line": "one"}, {"line": "two"}, {"line": "three"}]
    done = imgtools("log", disk, "-p", "err")
    assert (done.code, done.stdout) == (6, b"")
    assert "need a journal" in done.stderr


def test_bad_words(guest: Path, crafted: Path) -> None:
    for words, code, complaint in [
        ((), 2, "which disk"),
        ((guest, "x"), 2, "one word too many"),
        ((guest, "-p", "loud"), 2, "known: emerg"),
        ((guest, "-S", "soon"), 2, "--since soon: not a time"),
        ((guest, "-b", "5"), 2, "the journal has 2 boots"),
        ((guest, "-b", "-2"), 2, "the journal has 2 boots"),
        ((guest, "-b", "this"), 2, "neither a number nor an id"),
        ((crafted,), 6, "no journal and no syslog"),
    ]:
        done = imgtools("log", *words)
        assert (done.code, done.stdout) == (code, b""), done.stderr
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 100, 250, 5000, 200_000])
def test_a_cut_off_file_costs_its_later_entries(keep: int, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_guest(root)
    (root / "sparse").unlink()
    place = root / "var/log/journal" / journals.MACHINE
    place.mkdir(parents=True)
    shutil.copy(folder / "user-1000.journal", place)
    data = (folder / "system.journal").read_bytes()
    (place / "system.journal").write_bytes(data[:keep])
    done = imgtools("log", make_ext4(root, tmp_path / "disk.img", 128 << 20))
    assert done.code == 0
    assert "system.journal: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout.count(b"message") >= 500


def read_all(data: bytes) -> int:
    file = JournalFile(io.BytesIO(data), len(data))
    return sum(1 for _ in file.entries())


def test_random_damage_ends_in_time(folder: Path) -> None:
    numbers = random.Random(11)
    whole = (folder / "system.journal").read_bytes().rstrip(b"\0") + bytes(64)
    start = time.monotonic()
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(numbers.choice((1, 10, 300))):
            at = numbers.randrange(len(data))
            data[at : at + 8] = numbers.choice(
                (bytes(8), b"\xff" * 8, numbers.randbytes(8), len(data).to_bytes(8, "little"))
            )[: len(data) - at]
        try:
            outcomes.add(read_all(bytes(data)) > 0)
        except JournalDamagedError:
            outcomes.add("damaged")
    assert outcomes == {True, "damaged"}
    assert time.monotonic() - start < 60


def test_chains_that_run_in_circles(folder: Path) -> None:
    data = bytearray((folder / "system@0000.journal").read_bytes())
    first = int.from_bytes(data[176:184], "little")
    data[first + 16 : first + 24] = first.to_bytes(8, "little")
    with pytest.raises(JournalDamagedError, match="go back"):
        read_all(bytes(data))
    entry = data[first + 24 : first + 32]
    data[first + 32 : first + 40] = entry
    with pytest.raises(JournalDamagedError, match="goes back"):
        read_all(bytes(data))


def test_an_entry_of_the_same_large_field_over_and_over(folder: Path) -> None:
    """A file of 2 MiB may claim entries of 4 GiB: 4096 times one field of a mebibyte."""
    import struct

    def item(kind: int, body: bytes) -> bytes:
        raw = struct.pack("<B7xQ", kind, 16 + len(body)) + body
        return raw + bytes(-len(raw) % 8)

    field = item(1, bytes(48) + b"MESSAGE=" + b"x" * (1 << 20 - 1 - 4))
    large = 272
    entry = item(3, bytes(48) + struct.pack("<QQ", large, 0) * 4096)
    array = item(6, struct.pack("<QQ", 0, large + len(field)))
    head = bytearray(272)
    head[:8] = b"LPKSHHRH"
    head[88:96] = (272).to_bytes(8, "little")
    head[176:184] = (large + len(field) + len(entry)).to_bytes(8, "little")
    data = bytes(head) + field + entry + array
    (found,) = JournalFile(io.BytesIO(data), len(data)).entries()
    assert found.incomplete
    assert sum(len(value) for value in found.fields[b"MESSAGE"]) <= 8 << 20
