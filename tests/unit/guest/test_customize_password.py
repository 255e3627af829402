"""--root-password and --password: selectors, methods, and what becomes of /etc/shadow."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import GuestOperationError, ImgtoolsError, UsageError
from imgtools.guest.customize.hashing import METHODS, hash_password, verifies
from imgtools.guest.customize.password import (
    SetPassword,
    parse_crypto,
    parse_password,
    parse_root_password,
    with_crypto,
)
from imgtools.guest.writing import Ears
from tests.unit.guest.guests import DEBIAN
from tests.unit.guest.writable_tree import MemoryGuest

pytestmark = pytest.mark.unit

PASSWD = b"root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1000::/home/bob:/bin/sh\nold::7:7:::\n"
SHADOW = (
    b"root:*:19000:0:99999:7:::\n"
    b"nobody:*:1:2:3:4:5:6:\n"
    b"bob:!:19001:0:99999:7:::extra\n"
    b"\xff\xfe strange\n"
    b"bob:again:1:::::::"
)
XCRYPT = b"\x7fELF..\0$y$\0$6$\0$5$\0$1$\0"
OLDER = b"\x7fELF..\0$6$\0$5$\0$1$\0"


def guest(**files: bytes) -> MemoryGuest:
    found = MemoryGuest(
        {**DEBIAN, "etc/passwd": PASSWD, "etc/shadow": SHADOW,
         "lib/x86_64-linux-gnu/libcrypt.so.1": XCRYPT, **files}
    )  # fmt: skip
    node = found.memory.node("/etc/shadow")
    node.mode, node.gid = 0o100640, 42
    node.attributes[b"security.selinux"] = b"system_u:object_r:shadow_t:s0\0"
    return found


def fields(found: MemoryGuest, name: bytes) -> list[bytes]:
    lines = found.text("/etc/shadow").split(b"\n")
    return next(line for line in lines if line.startswith(name + b":")).split(b":")


def test_a_password_is_set_and_nothing_else_changes() -> None:
    found = guest()
    step = parse_password("bob:password:a:b c")
    assert not step.idle(found)
    (done,) = step.perform(found)
    assert (done.verb, done.path) == ("edited", b"/etc/shadow")
    lines = found.text("/etc/shadow").split(b"\n")
    assert [*lines[:2], *lines[3:]] == [*SHADOW.split(b"\n")[:2], *SHADOW.split(b"\n")[3:]]
    line = lines[2].split(b":")
    assert line[1].startswith(b"$y$")
    assert verifies(b"a:b c", line[1])
    assert abs(int(line[2]) - time.time() // 86400) <= 1
    assert line[3:] == b"0:99999:7:::extra".split(b":")
    node = found.memory.node("/etc/shadow")
    assert (node.mode, node.gid) == (0o100640, 42)
    assert node.attributes == {b"security.selinux": b"system_u:object_r:shadow_t:s0\0"}
    writes = found.memory.writes
    assert step.idle(found)
    assert step.perform(found) == []
    assert found.memory.writes == writes
    assert "a:b c" not in repr(done) + repr(step)


@pytest.mark.parametrize(
    ("selector", "field"), [("disabled", b"*"), ("locked", b"!*"), ("locked:disabled", b"!*")]
)
def test_accounts_without_a_password(selector: str, field: bytes) -> None:
    found = guest(**{"etc/shadow": b"root:$6$salt$hash:1::::::\n"})
    step = parse_root_password(selector)
    assert not step.idle(found)
    step.perform(found)
    assert fields(found, b"root")[1] == field
    assert step.idle(found)


def test_a_locked_account_keeps_a_password_for_later() -> None:
    found = guest()
    step = parse_root_password("locked:password:secret")
    step.perform(found)
    field = fields(found, b"root")[1]
    assert field.startswith(b"!$y$")
    assert verifies(b"secret", field[1:])
    assert step.idle(found)
    assert not parse_root_password("password:secret").idle(found)


def test_a_random_password_is_told_and_is_another_each_time() -> None:
    seen = set()
    for selector in "random", "locked:random":
        found, step = guest(), parse_root_password(selector)
        assert not step.idle(found)
        lines: list[str] = []
        found.ears = Ears(tells=lines.append)
        (done,) = step.perform(found)
        (line,) = lines
        password = line.removeprefix("random password of root: ")
        assert len(password) == 21
        assert verifies(password.encode(), fields(found, b"root")[1].removeprefix(b"!"))
        assert password not in repr(step) + repr(done)
        assert not step.idle(found)
        seen.add(password)
    assert len(seen) == 2


def test_a_random_password_that_nobody_hears_is_not_set() -> None:
    found = guest()
    with pytest.raises(UsageError, match="nobody would be told"):
        parse_root_password("random").perform(found)
    assert found.memory.writes == 0


def test_a_file_is_read_once_and_its_first_line_counts(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"first line \r\nsecond\n")
    step = parse_root_password(f"file:{file}")
    file.unlink()
    found = guest()
    step.perform(found)
    assert verifies(b"first line ", fields(found, b"root")[1])


@pytest.mark.parametrize(
    "value",
    ["", "secret", "password", "passwd:secret", "random:", "disabled:x", "locked:", "file:",
     "password:", "password:a\nb", "password:" + "s" * 512, "locked:locked:secret"],
)  # fmt: skip
def test_bad_selectors(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_root_password(value)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("value", ["", "secret", ":password:secret", "a/b:random", "bob"])
def test_bad_users(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_password(value)
    assert "secret" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    for name, content in ("empty", b""), ("line", b"\nx"), ("nul", b"a\0b"), ("big", b"x" * 70000):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=r"--password: "):
            parse_password(f"bob:file:{tmp_path / name}")
    for path in tmp_path, tmp_path / "missing":
        with pytest.raises(UsageError, match="cannot be read"):
            parse_password(f"bob:file:{path}")


@pytest.mark.parametrize(
    ("user", "files", "message"),
    [
        ("eve", {}, "has no user eve"),
        ("ro", {}, "has no user ro"),
        ("old", {}, "is in /etc/passwd"),
        ("bob", {"etc/shadow": b"root:*:1::::::\n"}, "has no line for bob"),
        ("bob", {"etc/shadow": b"bob:x\n"}, "is damaged in the line of bob"),
    ],
)
def test_users_whose_password_cannot_be_set(
    user: str, files: dict[str, bytes], message: str
) -> None:
    found = guest(**files)
    step = parse_password(f"{user}:password:secret")
    for act in step.idle, step.perform:
        with pytest.raises(GuestOperationError, match=message) as caught:
            act(found)
        assert "secret" not in str(caught.value)
    assert found.memory.writes == 0


def test_guests_that_are_not_linux() -> None:
    for files, kind in ({"Windows/System32/": None}, "Windows"), ({"a": b""}, "no Linux"):
        with pytest.raises(GuestOperationError, match=f"the guest is {kind}"):
            parse_root_password("random").idle(MemoryGuest(files))


RHEL6 = {"etc/redhat-release": b"Red Hat Enterprise Linux Server release 6.10 (Santiago)\n"}
RHEL5 = {"etc/redhat-release": b"Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n"}
RHEL9 = {"etc/os-release": b'ID=rhel\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat Enterprise Linux"\n'}
ALPINE = {"etc/os-release": b'ID=alpine\nVERSION_ID=3.20.1\nPRETTY_NAME="Alpine Linux v3.20"\n'}
PAM_SHA = {"etc/pam.d/common-password": b"password [success=1] pam_unix.so obscure sha512\n"}
PAM_YES = {"etc/pam.d/common-password": b"password [success=1] pam_unix.so obscure yescrypt\n"}
DEFS_SHA = {"etc/login.defs": b"# ENCRYPT_METHOD MD5\nENCRYPT_METHOD SHA512\n"}


@pytest.mark.parametrize(
    ("files", "prefix"),
    [
        ({**DEBIAN, "lib/libcrypt.so.1": XCRYPT}, b"$y$"),
        ({**DEBIAN, "lib64/libcrypt.so.2": XCRYPT, **DEFS_SHA, **PAM_YES}, b"$y$"),
        ({**DEBIAN, "lib/libcrypt.so.1": XCRYPT, **PAM_SHA}, b"$6$"),
        ({**DEBIAN, "lib/libcrypt.so.1": XCRYPT, **DEFS_SHA}, b"$6$"),
        ({**DEBIAN, "lib/libcrypt.so.1": OLDER}, b"$6$"),
        ({**DEBIAN}, b"$y$"),
        (RHEL9, b"$y$"),
        (RHEL6, b"$6$"),
        (RHEL5, b"$1$"),
        (ALPINE, b"$6$"),
    ],
)
def test_the_hash_is_one_that_the_guest_checks(
    files: dict[str, bytes | str | None], prefix: bytes
) -> None:
    found = MemoryGuest({**files, "etc/passwd": PASSWD, "etc/shadow": SHADOW})
    step = parse_root_password("password:secret")
    step.perform(found)
    field = fields(found, b"root")[1]
    assert field.startswith(prefix)
    assert verifies(b"secret", field)
    assert step.idle(found)


def test_the_method_can_be_asked_for() -> None:
    found = guest()
    for method in METHODS:
        step = with_crypto(
            parse_root_password("password:secret"), {"password-crypto": parse_crypto(method)}
        )
        assert not step.idle(found)
        step.perform(found)
        assert fields(found, b"root")[1].startswith(hash_password(b"x", method)[:3])
        assert step.idle(found)
    with pytest.raises(UsageError, match="no such method"):
        parse_crypto("des")


@pytest.mark.parametrize(
    ("files", "method"),
    [({**DEBIAN, "lib/libcrypt.so.1": OLDER}, "yescrypt"), (ALPINE, "yescrypt"),
     (RHEL5, "sha512")],
)  # fmt: skip
def test_a_method_that_locks_the_user_out_is_refused(
    files: dict[str, bytes | str | None], method: str
) -> None:
    found = MemoryGuest({**files, "etc/passwd": PASSWD, "etc/shadow": SHADOW})
    step = replace(parse_root_password("password:x"), crypto=parse_crypto(method))
    with pytest.raises(GuestOperationError, match=f"cannot check {method} hashes"):
        step.perform(found)
    assert found.memory.writes == 0


@pytest.mark.parametrize(
    "hashed",
    [b"$6$rounds=999999999$abc$" + b"x" * 86, b"$y$jFT$salt$" + b"x" * 43, b"*", b"", b"!",
     b"$6$salt", b"$y$j9T$" + b"x" * 70000],
)  # fmt: skip
def test_a_hostile_hash_is_never_computed(hashed: bytes) -> None:
    started = time.process_time()
    assert not verifies(b"secret", hashed)
    found = guest(**{"etc/shadow": b"root:" + hashed + b":1::::::\n"})
    parse_root_password("password:secret").perform(found)
    assert verifies(b"secret", fields(found, b"root")[1])
    assert time.process_time() - started < 60  # 999999999 rounds take an hour


@given(password=st.binary(max_size=600))
def test_any_password_is_hashed_or_refused(password: bytes) -> None:
    text = password.decode("utf-8", errors="surrogateescape")
    try:
        step = parse_root_password(f"password:{text}")
    except ImgtoolsError:
        return
    assert isinstance(step, SetPassword)
    found = guest()
    replace(step, crypto="md5").perform(found)
    assert verifies(password, fields(found, b"root")[1])
