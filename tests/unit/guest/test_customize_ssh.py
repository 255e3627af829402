"""--ssh-inject: keys that are keys, files that sshd takes, homes that lie."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from imgtools.errors import GuestFileTooLargeError, GuestOperationError, UsageError
from imgtools.guest.customize import ssh_inject
from imgtools.guest.customize.placing import with_type
from imgtools.guest.customize.public_keys import blob_of
from tests.unit.guest.guests import DEBIAN
from tests.unit.guest.writable_tree import MemoryGuest

pytestmark = pytest.mark.unit


def key(kind: str = "ssh-ed25519", content: str = "one", comment: str = "me@here") -> str:
    data = len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0\x20" + content.encode() * 8
    return f"{kind} {base64.b64encode(data).decode()} {comment}"


KEY = key()
LABEL = b"security.selinux"
PASSWD = (
    b"root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1001::/home/bob:/bin/sh\n"
    b"nohome:x:1002:1002::/home/nohome:/bin/sh\nrel:x:3:3::home:/bin/sh\ntop:x:4:4::/:/bin/sh\n"
    b"bad:x:many:1::/home/bob:/bin/sh\n"
)


def guest(**files: bytes | str | None) -> MemoryGuest:
    found = MemoryGuest({**DEBIAN, "etc/passwd": PASSWD, "home/bob/": None, "root/": None, **files})
    found.memory.node("/home/bob").uid = 1000
    return found


def test_a_key_for_a_user_without_any() -> None:
    found = guest()
    step = ssh_inject.parse(f"bob:string:{KEY}")
    assert not step.idle(found)
    done = step.perform(found)
    assert [one.path for one in done] == [b"/home/bob/.ssh", b"/home/bob/.ssh/authorized_keys"]
    folder = found.memory.node("/home/bob/.ssh")
    file = found.memory.node("/home/bob/.ssh/authorized_keys")
    assert (folder.mode & 0o7777, folder.uid, folder.gid) == (0o700, 1000, 1001)
    assert (file.mode & 0o7777, file.uid, file.gid) == (0o600, 1000, 1001)
    assert file.data == KEY.encode() + b"\n"
    assert folder.attributes == file.attributes == {}
    writes = found.memory.writes
    assert step.idle(found)
    assert step.perform(found) == []
    assert found.memory.writes == writes


def test_labels_follow_the_home() -> None:
    found = guest()
    found.memory.node("/root").attributes[LABEL] = b"system_u:object_r:admin_home_t:s0\0"
    ssh_inject.parse(f"root:string:{KEY}").perform(found)
    for path in "/root/.ssh", "/root/.ssh/authorized_keys":
        assert found.memory.node(path).attributes == {LABEL: b"system_u:object_r:ssh_home_t:s0\0"}
    assert with_type(b"u:r:t\0", b"x_t") == b"u:object_r:x_t\0"
    assert with_type(b"u:r:t:s0:c1,c2", b"x_t") == b"u:object_r:x_t:s0:c1,c2"
    assert with_type(b"nonsense", b"x_t") == b"nonsense"


def test_keys_are_added_after_others_once() -> None:
    other = 'command="echo \\"a b\\"",restrict ' + key(content="other")
    found = guest(**{"home/bob/.ssh/authorized_keys": other.encode()})
    for path in "/home/bob/.ssh", "/home/bob/.ssh/authorized_keys":
        node = found.memory.node(path)
        node.uid, node.mode = 1000, node.mode & ~0o077
    second = key("ssh-rsa", "two")
    again = key(content="other", comment="same key, another comment")
    keys = f"# mine\n{KEY}\n\n{second}\n{again}\n{KEY}\n"
    step = ssh_inject.parse(f"bob:string:{keys}")
    (done,) = step.perform(found)
    assert done.verb == "edited"
    text = found.text("/home/bob/.ssh/authorized_keys").decode()
    assert text == f"{other}\n{KEY}\n{second}\n"
    assert step.idle(found)


def test_a_commented_key_counts_for_nothing() -> None:
    found = guest(**{"home/bob/.ssh/authorized_keys": b"#" + KEY.encode() + b"\n"})
    ssh_inject.parse(f"bob:string:{KEY}").perform(found)
    assert found.text("/home/bob/.ssh/authorized_keys").decode() == f"#{KEY}\n{KEY}\n"


@pytest.mark.parametrize(
    ("uid", "mode", "fixed"),
    [(1000, 0o755, False), (0, 0o755, False), (0, 0o700, True), (1000, 0o775, True),
     (1000, 0o777, True), (55, 0o700, True)],
)  # fmt: skip
def test_what_sshd_would_refuse_is_put_right(uid: int, mode: int, fixed: bool) -> None:
    found = guest(**{"home/bob/.ssh/authorized_keys": KEY.encode() + b"\n"})
    for path, bits in ("/home/bob/.ssh", mode), ("/home/bob/.ssh/authorized_keys", mode & 0o666):
        node = found.memory.node(path)
        node.uid, node.mode = uid, node.mode & ~0o777 | bits
    step = ssh_inject.parse(f"bob:string:{KEY}")
    assert step.idle(found) is not fixed
    done = step.perform(found)
    assert [one.verb for one in done] == ["changed", "changed"] * fixed
    assert step.idle(found)
    assert found.text("/home/bob/.ssh/authorized_keys") == KEY.encode() + b"\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"home/bob/.ssh": "/etc", "etc/authorized_keys": b""}, "leads out of the home, to /etc"),
        ({"home/bob/.ssh": "/root/new"}, "leads out of the home"),
        ({"home/bob/.ssh": "../../root"}, "leads out of the home"),
        ({"home/bob/.ssh": "../bobby", "home/bobby/": None}, "leads out of the home"),
        ({"home/bob/.ssh/authorized_keys": "/etc/shadow"}, "leads out of the home"),
        ({"home/bob/.ssh/authorized_keys": f"{'../' * 9}etc/cron.d/x", "etc/cron.d/": None},
         "leads out of the home"),
        ({"home/bob/.ssh": ".ssh"}, "too many symbolic links"),
        ({"home/bob/.ssh": b"a file"}, "is not a directory"),
        ({"home/bob/.ssh/authorized_keys/x": b""}, "is not a regular file"),
    ],
)  # fmt: skip
def test_homes_that_lie(files: dict[str, bytes | str | None], message: str) -> None:
    found = guest(**files)
    step = ssh_inject.parse(f"bob:string:{KEY}")
    for act in step.idle, step.perform:
        with pytest.raises(GuestOperationError, match=message):
            act(found)
    assert found.memory.writes == 0


def test_a_hard_link_to_another_file_is_not_written() -> None:
    found = guest(**{"home/bob/.ssh/": None, "etc/cron.d/job": b"# root's\n"})
    found.memory.link(b"/home/bob/.ssh/authorized_keys", b"/etc/cron.d/job")
    with pytest.raises(GuestOperationError, match="is also another file"):
        ssh_inject.parse(f"bob:string:{KEY}").perform(found)
    assert found.text("/etc/cron.d/job") == b"# root's\n"


def test_links_inside_the_home_and_on_the_way_to_it_are_followed() -> None:
    found = guest(
        **{"home/bob": "/srv/homes/bob", "srv/homes/bob/keys/": None, "srv/homes/bob/.ssh": "keys"}
    )
    ssh_inject.parse(f"bob:string:{KEY}").perform(found)
    assert found.text("/srv/homes/bob/keys/authorized_keys") == KEY.encode() + b"\n"


@pytest.mark.parametrize(
    ("user", "message"),
    [("eve", "has no user eve"), ("nohome", "nohome has no home"), ("rel", "rel has no home"),
     ("bad", "damaged in the line of bad")],
)  # fmt: skip
def test_users_without_a_home(user: str, message: str) -> None:
    with pytest.raises(GuestOperationError, match=message):
        ssh_inject.parse(f"{user}:string:{KEY}").idle(guest())


def test_a_home_that_is_the_root_has_no_links_at_all() -> None:
    found = guest(**{".ssh": "etc"})
    with pytest.raises(GuestOperationError, match="leads out of the home"):
        ssh_inject.parse(f"top:string:{KEY}").perform(found)
    ssh_inject.parse(f"top:string:{KEY}").perform(plain := guest())
    assert plain.text("/.ssh/authorized_keys") == KEY.encode() + b"\n"


def test_a_huge_file_of_keys_is_refused() -> None:
    found = guest(**{"home/bob/.ssh/authorized_keys": b"\n" * ((1 << 20) + 1)})
    with pytest.raises(GuestFileTooLargeError):
        ssh_inject.parse(f"bob:string:{KEY}").perform(found)


@pytest.mark.parametrize(
    ("config", "more", "elsewhere"),
    [
        (b"AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2\n", b"", False),
        (b"# AuthorizedKeysFile /etc/keys/%u\nPort 22\n", b"", False),
        (b"authorizedkeysfile=/etc/keys/%u\n", b"", True),
        (b'AuthorizedKeysFile "/etc/keys/%u"\n', b"", True),
        (b"AuthorizedKeysFile /etc/keys/%u %h/.ssh/authorized_keys\n", b"", False),
        (b"Include sshd_config.d/*.conf\n", b"AuthorizedKeysFile none\n", True),
        (b"Include sshd_config.d/a.conf\n", b"AuthorizedKeysFile none\n", True),
        (b"Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile none\n",
         b"AuthorizedKeysFile .ssh/authorized_keys\n", False),
        (b"Match User eve\nAuthorizedKeysFile none\n", b"", False),
        (b"Include sshd_config\n", b"", False),
    ],
)  # fmt: skip
def test_keys_are_put_only_where_sshd_reads_them(
    config: bytes, more: bytes, elsewhere: bool
) -> None:
    found = guest(**{"etc/ssh/sshd_config": config, "etc/ssh/sshd_config.d/a.conf": more})
    step = ssh_inject.parse(f"bob:string:{KEY}")
    if not elsewhere:
        assert step.perform(found)
        return
    with pytest.raises(GuestOperationError, match="sshd does not read"):
        step.perform(found)
    assert found.memory.writes == 0


def test_configurations_that_include_one_another_end() -> None:
    text = b"Include sshd_config.d/*\n" * 50
    files = {f"etc/ssh/sshd_config.d/{number}.conf": text for number in range(400)}
    assert ssh_inject.parse(f"bob:string:{KEY}").perform(
        guest(**{"etc/ssh/sshd_config": text}, **files)
    )


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a:b.pub"
    file.write_text(f"{KEY}\r\n")
    assert ssh_inject.parse(f"bob:file:{file}").keys == (KEY.encode(),)


def test_the_callers_default_key_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no public key in"):
        ssh_inject.parse("bob")
    (tmp_path / ".ssh").mkdir()
    for age, name in enumerate(("id_ed25519-cert.pub", "other.pub", "id_rsa.pub", "id_old.pub")):
        file = tmp_path / ".ssh" / name
        file.write_text(key(content=f"{name:32}") + "\n")
        os.utime(file, (2000 - age, 2000 - age))
    assert ssh_inject.parse("bob").keys == (key(content=f"{'id_rsa.pub':32}").encode(),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END", "this is a private key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n", "this is a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nc2VjcmV0", "this is a private key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nc2VjcmV0", "not in OpenSSH's format"),
        ("", "holds no key"),
        ("# only a comment\n", "holds no key"),
        ("ssh-ed25519", "no public key"),
        ("ssh-ed25519 c2VjcmV0", "no public key"),
        (KEY.replace("ssh-ed25519", "ssh-rsa"), "no public key"),
        (KEY.replace(" AAAA", " AAA"), "no public key"),
        (f"{KEY}\nc2VjcmV0", "key 2 of 2 is no public key"),
        (key("ssh-ed25519-cert-v01@openssh.com"), "is a certificate"),
    ],
)
def test_what_is_no_public_key(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ssh_inject.parse(f"bob:string:{text}")
    assert "c2VjcmV0" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "names no user"), (":string:x", "names no user"), ("../bob", "names no user"),
        ("bob:", "no such selector"), ("bob:file:", "no such selector"),
        ("bob:file:/no/such", "cannot be read"), ("bob:keys:x", "no such selector"),
        ("bob:url:https://x/y.keys", "not fetched from the network"),
    ],
)  # fmt: skip
def test_bad_values(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ssh_inject.parse(value)


def test_options_before_a_key() -> None:
    found = blob_of(f'from="a b,c",no-pty {KEY}'.encode())
    assert found is not None
    assert found[0] == b"ssh-ed25519"
    assert blob_of(b'from="a b' + KEY.encode()) is None
    assert blob_of(b"") is None
