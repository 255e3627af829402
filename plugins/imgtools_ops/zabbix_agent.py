"""The name by which Zabbix knows this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, rewrite

FILES = ("/etc/zabbix/zabbix_agent*.conf", "/etc/zabbix_agentd.conf")
# Without it the agent takes the name of the system.
LINE = re.compile(rb"^Hostname=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob(*FILES):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: LINE.sub(b"", text))


operation = Operation(
    name="zabbix-agent",
    heading="Remove this machine's name from the Zabbix agent",
    description="Hostname in its configuration, under which the values of all clones would be "
    "stored; the agent uses the system's name instead.",
    plan=_plan,
)
