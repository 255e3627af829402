"""Which identities remain in a guest: what two clones of it would share.

Every probe reads files of the guest; of secrets only a digest is kept, which tells whether two
guests have the same one.  Sources: machine-id(5), sshd(8), systemd.network(5) (DUID),
systemd-random-seed(8), cloud-init's docs (instance data), nm-settings(5), subscription-manager(8).
"""

from __future__ import annotations

import hashlib
import json
import re
import stat as _stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from imgtools.api import Guest
from imgtools.errors import GuestOperationError
from imgtools.guest.opening import Outcome, Session
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

Severity = Literal["clash", "leak", "note"]
"""``clash``: clones would be taken for one another, or share a secret that each machine makes for
itself; ``leak``: something of this machine or its users goes into every clone; ``note``: worth
knowing."""

MAX_DIGEST = 1 << 20
MAX_LISTED = 1000
_MAC = re.compile(rb"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")
_NETWORK = (
    "/etc/udev/rules.d/*persistent-net.rules",
    "/etc/udev/rules.d/*-net_persistent_names.rules",
    "/etc/netplan/*.y*ml",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network/ifcfg-*",
    "/etc/NetworkManager/system-connections/*",
    "/etc/systemd/network/*",
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
)
# netplan(5), nm-settings-keyfile(5), systemd.network(5), ifcfg of Red Hat and SUSE, interfaces(5).
_GIVEN = re.compile(
    rb"^[ \t]*(?:macaddress[ \t]*:|cloned-mac-address[ \t]*=|MACAddress[ \t]*=|MACADDR=|LLADDR="
    rb"|hwaddress[ \t]).*",
    re.MULTILINE,
)
# netplan's match, with what is deeper than it, and [Match] of systemd.
_MATCHED = re.compile(rb"^( *)match *:.*\n(?:(?:\1 +.*| *#.*| *)\n)*", re.MULTILINE)
_MATCH_SECTION = re.compile(rb"^\[Match\][ \t]*\n(?:(?!\[).*\n?)*", re.MULTILINE)
_ORDER: dict[Severity, int] = {"clash": 0, "leak": 1, "note": 2}
_UNSET = (b"", b"uninitialized")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One thing that remains: its kind, where it is, and a digest of its value (or empty)."""

    kind: str
    severity: Severity
    path: bytes
    detail: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What remains in one guest."""

    name: str
    found: tuple[Identity, ...]

    @property
    def unsafe(self) -> bool:
        """True if clones would clash."""
        return any(one.severity == "clash" for one in self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A value that several guests have: (guest, path) of each."""

    kind: str
    severity: Severity
    places: tuple[tuple[str, bytes], ...]


def identities(arguments: DiskArguments) -> Outcome[Identities]:
    """What remains in one guest.  Raises what opening it raises."""
    selection = select_one(arguments)

    def task(session: Session) -> Identities:
        found = find_identities(Guest(guest_tree(session, ())))
        return Identities(name=selection.name, found=found)

    return run_selected(task, selection, arguments)


def find_identities(guest: Guest) -> tuple[Identity, ...]:
    """Run every probe; one that meets damage says so and stops no other."""
    found: list[Identity] = []
    for probe in _PROBES:
        try:
            found += probe(guest)
        except GuestOperationError as error:
            found.append(Identity(kind="unreadable", severity="note", path=b"", detail=str(error)))
    return tuple(sorted(found, key=lambda one: (_ORDER[one.severity], one.kind, one.path)))


def shared(guests: Sequence[Identities]) -> list[Shared]:
    """What any two of the guests have in common, the worst first."""
    places: dict[tuple[str, str], list[tuple[str, bytes]]] = defaultdict(list)
    severities: dict[tuple[str, str], Severity] = {}
    for number, guest in enumerate(guests):
        for one in guest.found:
            if one.digest:
                key = one.kind, one.digest
                severities[key] = one.severity
                if all(where[0] != f"{number}" for where in places[key]):
                    places[key].append((f"{number}", one.path))
    result = [
        Shared(
            kind=kind,
            severity=severities[kind, digest],
            places=tuple((guests[int(number)].name, path) for number, path in where),
        )
        for (kind, digest), where in places.items()
        if len(where) > 1
    ]
    return sorted(result, key=lambda one: (_ORDER[one.severity], one.kind, one.places))


# --- probes --------------------------------------------------------------------------------------


def _machine_id(guest: Guest) -> Iterator[Identity]:
    for path in (b"/etc/machine-id", b"/var/lib/dbus/machine-id"):
        if not guest.tree.exists(path) or _stat.S_ISLNK(guest.tree.lstat(path).mode):
            continue
        value = (guest.read(path) or b"").strip()
        if value not in _UNSET:
            yield _one("machine-id", "clash", path, value)


def _files(kind: str, severity: Severity, *patterns: str) -> Callable[[Guest], Iterator[Identity]]:
    """A probe for files that are not empty."""

    def probe(guest: Guest) -> Iterator[Identity]:
        yield from _of_files(guest, kind, severity, guest.glob(*patterns))

    return probe


def _in_homes(
    kind: str, severity: Severity, *patterns: str
) -> Callable[[Guest], Iterator[Identity]]:
    def probe(guest: Guest) -> Iterator[Identity]:
        yield from _of_files(guest, kind, severity, guest.in_homes(*patterns))

    return probe


def _of_files(
    guest: Guest, kind: str, severity: Severity, paths: Iterable[bytes]
) -> Iterator[Identity]:
    for count, path in enumerate(paths):
        if count >= MAX_LISTED:
            yield Identity(kind=kind, severity=severity, path=path, detail="and more")
            return
        found = guest.tree.lstat(path)
        if _stat.S_ISREG(found.mode) and found.size:
            with guest.tree.open(path) as stream:
                yield _one(kind, severity, path, stream.read(MAX_DIGEST))


def _macs(guest: Guest) -> Iterator[Identity]:
    """Hardware addresses in what configures networks.

    One that a card shall pretend to have is every clone's, and they clash; one by which a card is
    found belongs to this machine, and in a clone the file is without effect.
    """
    for path in guest.glob(*_NETWORK):
        if not _stat.S_ISREG(guest.tree.lstat(path).mode):
            continue
        text = guest.read(path) or b""
        given = _given_macs(path, text)
        for address in sorted(set(_MAC.findall(text))):
            severity: Severity = "clash" if address in given else "leak"
            yield _one("mac-address", severity, path, address.lower(), detail=address.decode())


def _given_macs(path: bytes, text: bytes) -> set[bytes]:
    """The addresses that cards shall pretend to have."""
    if path.endswith((b".yaml", b".yml")):
        text = _MATCHED.sub(b"", text)
    elif path.startswith(b"/etc/systemd/network/"):
        text = _MATCH_SECTION.sub(b"", text)
    return {address for line in _GIVEN.findall(text) for address in _MAC.findall(line)}


def _initiator(guest: Guest) -> Iterator[Identity]:
    """iSCSI's name of this machine; Debian's package has a line there that asks for a new one."""
    path = b"/etc/iscsi/initiatorname.iscsi"
    for line in (guest.read(path) or b"").splitlines():
        if line.startswith(b"InitiatorName="):
            yield _one("iscsi-initiator", "clash", path, line)


def _snapd(guest: Guest) -> Iterator[Identity]:
    """The device that snapd is to the store, in its state file."""
    path = b"/var/lib/snapd/state.json"
    try:
        device = json.loads(guest.read(path) or b"")["data"]["auth"]["device"]
        own = [device[name] for name in ("serial", "key-id", "session-macaroon") if name in device]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if own:
        yield _one("agent-identity", "clash", path, repr(own).encode())


def _passwords(guest: Guest) -> Iterator[Identity]:
    """Accounts that a password opens: every clone has it."""
    for line in (guest.read("/etc/shadow") or b"").splitlines():
        name, _, rest = line.partition(b":")
        secret = rest.partition(b":")[0]
        if len(secret) >= 13 and not secret.startswith((b"!", b"*")):
            detail = name.decode("utf-8", "backslashreplace")
            yield _one("password", "note", b"/etc/shadow", secret, detail=detail)


def _one(kind: str, severity: Severity, path: bytes, value: bytes, *, detail: str = "") -> Identity:
    digest = hashlib.sha256(value).hexdigest()
    return Identity(kind=kind, severity=severity, path=path, detail=detail, digest=digest)


_PROBES: tuple[Callable[[Guest], Iterable[Identity]], ...] = (
    _machine_id,
    _macs,
    _initiator,
    _files("ssh-host-key", "clash", "/etc/ssh/ssh_host_*_key"),
    _files("dhcp-duid", "clash", "/var/lib/dhcp/*duid*", "/var/lib/dhcpv6/*duid*",
           "/etc/dhcp*.duid"),
    _files("dhcp-lease", "leak", "/var/lib/dhcp/*.leases", "/var/lib/dhclient/*",
           "/var/lib/NetworkManager/*.lease", "/var/lib/systemd/network/*lease*"),
    _files("network-manager-key", "clash", "/var/lib/NetworkManager/secret_key"),
    _files("random-seed", "clash", "/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed",
           "/var/lib/random-seed", "/boot/loader/random-seed", "/boot/efi/loader/random-seed"),
    _files("credential-secret", "clash", "/var/lib/systemd/credential.secret"),
    _files("cloud-init-instance", "clash", "/var/lib/cloud/data/instance-id",
           "/var/lib/cloud/instances/*/datasource"),
    # Somebody put these there, maybe for all clones, as users' keys.
    _files("shared-secret", "leak", "/etc/zabbix/*.psk"),
    _files("tls-key", "leak", "/etc/ssl/private/*", "/etc/pki/tls/private/*",
           "/etc/letsencrypt/archive/*/privkey*"),
    _files("kerberos-keytab", "clash", "/etc/krb5.keytab"),
    _files("registration", "clash", "/etc/pki/consumer/*", "/etc/pki/entitlement/*",
           "/etc/sysconfig/rhn/systemid", "/var/lib/yum/uuid", "/etc/zypp/credentials.d/*",
           "/var/lib/ubuntu-advantage/private/*"),
    _files("agent-identity", "clash", "/etc/salt/pki/minion/*", "/etc/salt/minion_id",
           "/var/lib/puppet/ssl/private_keys/*", "/etc/puppetlabs/puppet/ssl/private_keys/*",
           "/etc/chef/client.pem", "/var/lib/tailscale/tailscaled.state",
           "/var/lib/snapd/device/private-keys-v1/*", "/etc/docker/key.json",
           "/var/lib/docker/engine-id", "/etc/nvme/hostid", "/etc/nvme/hostnqn",
           "/var/lib/zerotier-one/identity.secret", "/opt/consul/node-id",
           "/etc/insights-client/machine-id", "/var/lib/landscape/client/broker.bpickle"),
    _snapd,
    _files("journal", "leak", "/var/log/journal/*/*.journal"),
    _files("mail", "leak", "/var/spool/mail/*", "/var/mail/*"),
    _in_homes("history", "leak", ".bash_history", ".zsh_history", ".python_history",
              ".mysql_history", ".psql_history", ".node_repl_history", ".lesshst",
              ".local/share/fish/fish_history"),
    _in_homes("user-key", "leak", ".ssh/id_*", ".gnupg/private-keys-v1.d/*", ".aws/credentials",
              ".docker/config.json", ".kube/config", ".netrc", ".git-credentials"),
    _in_homes("authorized-keys", "note", ".ssh/authorized_keys"),
    _files("hostname", "note", "/etc/hostname"),
    _passwords,
)  # fmt: skip
