"""``imgtools identity``: what clones of a guest would share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, guests_of, output_options
from imgtools.cli.render import finish, print_columns, print_json, report_failures, tell
from imgtools.errors import EXIT_FINDINGS, ImgtoolsError

if TYPE_CHECKING:
    from imgtools.model.notices import Notice
    from imgtools.workflow.identity import Identities, Shared

EPILOG = """\b
Examples:
  imgtools identity template.qcow2
  imgtools identity -d mydomain --json
  imgtools identity *.qcow2

\b
A finding is of one of three severities:
  clash  clones would be taken for one another, or share a secret that each machine makes itself
  leak   something of this machine or its users goes into every clone
  note   worth knowing

Of secrets only a digest is shown (with --json).  Exit status 10 when anything would clash: within
an image, for one image; between any two, for several.
"""


@click.command(
    "identity",
    epilog=EPILOG,
    short_help="Show which identities remain in a guest, and what guests share",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options(positional="none")
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]...")
def command(disks: DiskArguments, output: Output, args: tuple[str, ...]) -> int:
    """Show the identities that are left in guests: ids, keys, addresses, histories.

    Of one guest: whether it can be cloned safely.  Of several: what any two of them share.
    """
    return run(guests_of(disks, args), output)


def run(guests: list[DiskArguments], output: Output) -> int:
    """Look at the guests, say what is there, and return the exit code."""
    from imgtools.workflow.identity import identities, shared

    looked: list[Identities] = []
    failures: list[ImgtoolsError] = []
    warnings: list[Notice] = []
    engine = None
    for guest in guests:
        try:
            outcome = identities(guest)
        except ImgtoolsError as error:
            failures.append(error)
            continue
        looked.append(outcome.result)
        warnings += outcome.warnings
        engine = "appliance" if "appliance" in (engine, outcome.engine) else "direct"
    common = shared(looked) if len(guests) > 1 else []
    if output.json and looked:
        print_json("identity", _document(looked, common), engine=engine, warnings=warnings)
    elif looked and not output.quiet:
        _print(looked, common, several=len(guests) > 1)
    code = finish(output, warnings)
    if failures:
        return report_failures(failures)
    unsafe = any(one.severity == "clash" for one in common)
    if len(guests) == 1:
        unsafe = looked[0].unsafe
    return EXIT_FINDINGS if unsafe else code


def _document(looked: list[Identities], common: list[Shared]) -> dict[str, Any]:
    return {
        "guests": [
            {"name": one.name, "clone_safe": not one.unsafe, "identities": one.found}
            for one in looked
        ],
        "shared": [
            {
                "kind": one.kind,
                "severity": one.severity,
                "places": [{"guest": name, "path": path} for name, path in one.places],
            }
            for one in common
        ],
    }


def _print(looked: list[Identities], common: list[Shared], *, several: bool) -> None:
    if several:
        rows = [(one.severity, one.kind, name, path) for one in common for name, path in one.places]
        print_columns(rows, gap="  ")
        if not common:
            tell(f"the {len(looked)} guests share nothing")
        return
    found = looked[0].found
    print_columns([(one.severity, one.kind, one.path, one.detail) for one in found], gap="  ")
    clashes = sum(one.severity == "clash" for one in found)
    if clashes:
        tell(f"not safe to clone: {clashes} identities would clash (imgtools sysprep)")
    else:
        tell("safe to clone: nothing would clash")
