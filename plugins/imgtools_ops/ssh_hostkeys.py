"""The keys by which ssh knows this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, link, remove_paths, write

UNIT = "imgtools-ssh-keys.service"
SYSTEM = "/etc/systemd/system"
SYSTEMD = (b"/usr/lib/systemd/systemd", b"/lib/systemd/systemd")
# The types that `ssh-keygen -A` makes.
TYPES = ("rsa", "ecdsa", "ed25519")
TEXT = """\
[Unit]
Description=Make the SSH host keys that are missing
Documentation=man:ssh-keygen(1)
{conditions}
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    keys = list(guest.glob("/etc/ssh/*_host_*"))
    yield from remove_paths(guest, keys)
    if keys and _needs_unit(guest):
        conditions = "\n".join(
            # with "|" one of them is enough
            f"ConditionPathExists=|!/etc/ssh/ssh_host_{one}_key"
            for one in TYPES
        )
        yield from write(guest, f"{SYSTEM}/{UNIT}", TEXT.format(conditions=conditions).encode())
        yield from link(guest, f"{SYSTEM}/{UNIT}", f"{SYSTEM}/multi-user.target.wants/{UNIT}")


def _needs_unit(guest: Guest) -> bool:
    """Debian makes the keys when its package is installed, and no unit makes them later.

    Other families have one that comes before sshd, or their sshd's start script does it.
    """
    if guest.family != "debian" or not guest.tree.exists(b"/usr/bin/ssh-keygen"):
        return False
    folders = (SYSTEM, "/usr/lib/systemd/system", "/lib/systemd/system")
    units = [path for folder in folders for path in guest.glob(f"{folder}/ss*key*.service")]
    return not units and any(guest.tree.exists(path) for path in SYSTEMD)


operation = Operation(
    name="ssh-hostkeys",
    heading="Remove the SSH host keys",
    description="With one key, each clone can pass for another. New ones are made at the next "
    f"boot; where the distribution does not do that itself (Debian, Ubuntu) {UNIT} does.",
    order=95,  # after customize: also what its programs make
    plan=_plan,
)
