"""The jobs that users gave to cron and at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_paths, rewrite

SPOOLS = ("/var/spool/cron", "/var/spool/at", "/var/spool/atjobs", "/var/spool/atspool")
# at(1) counts its jobs here, in hexadecimal, and does not make the file itself.
COUNTER = b".SEQ"
START = b"00000\n"


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path, _found in guest.files_below(*SPOOLS):
        if path.rpartition(b"/")[2] == COUNTER:
            yield from rewrite(guest, path, lambda _: START)
        else:
            yield from remove_paths(guest, [path])


operation = Operation(
    name="cron-spool",
    heading="Remove users' jobs of cron and at",
    description="Jobs of this machine would run on each clone. Those in /etc/crontab and "
    "/etc/cron.* stay; the counter of at begins anew.",
    plan=_plan,
)
