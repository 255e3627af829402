"""``imgtools image check``: are an image's own tables in order?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from imgtools.cli.image.requests import requests_of
from imgtools.cli.image.words import format_option
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import finish, print_json, report_failures, safe_text
from imgtools.errors import EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from imgtools.image.check import Check, Repair
    from imgtools.workflow.checking import Checked

EPILOG = """\b
Examples:
  imgtools image check guest.qcow2
  imgtools image check --json *.qcow2 | jq '.result[] | select(.state != "ok")'
  imgtools image check -r leaks guest.qcow2
  imgtools image check -r all guest.qcow2
  imgtools image check --restore guest.qcow2.kept guest.qcow2

A repair first keeps what it is going to change (IMAGE.kept); --restore gives the image back byte
for byte.  Leaked clusters only take space; -r all decides what to believe where the tables
disagree, and may decide wrongly.  Exit status: 0 ok, 10 something is wrong (after a repair:
still), 4 the format knows no check, or the image is too damaged for one.
"""


@click.command("check", epilog=EPILOG, short_help="Check an image's tables, and repair them")
@click.option("-r", "--repair", type=click.Choice(["leaks", "all"]), help="Repair what is wrong.")
@click.option("--keep", metavar="FILE", help="Keep what a repair changes there.")
@click.option("--restore", metavar="FILE", help="Undo a repair by what it kept.")
@click.option("--force", is_flag=True, help="Undo it although the image was used since.")
@format_option(
    "-f",
    "--format",
    "image_format",
    help="Format of the image, for one whose content is not to be believed.",
)
@click.option("--untrusted", is_flag=True, help="Follow no reference out of the image's folder.")
@output_options()
@click.argument("args", nargs=-1, required=True, metavar="IMAGE...")
def command(
    output: Output,
    repair: str | None,
    keep: str | None,
    restore: str | None,
    force: bool,
    image_format: str | None,
    untrusted: bool,
    args: tuple[str, ...],
) -> int:
    """Check the tables of images: is every cluster used as often as they say?

    The guest's files are not looked at, nor the backing chain.  Nothing is written without -r.
    """
    from imgtools.workflow.checking import check, undo

    requests = requests_of(args, image_format)
    if (keep or restore) and len(requests) != 1:
        raise UsageError("--keep and --restore are for one image", hint="name one image")
    if restore is not None:
        if repair is not None or keep is not None:
            raise UsageError("--restore cannot be mixed with a repair")
        undo(requests[0], Path(restore), force=force)
        if output.json:
            print_json("image-check", {"image": requests[0].name, "restored": restore})
        elif not output.quiet:
            print(safe_text(f"{requests[0].name}: is as it was before the repair"))
        return 0
    if (keep is not None or force) and repair is None:
        raise UsageError("--keep goes with -r, and --force with --restore")
    found: list[Checked] = []
    for request in requests:
        one = check(
            request,
            cast("Repair | None", repair),
            keep_at=None if keep is None else Path(keep),
            untrusted=untrusted,
        )
        found.append(one)
        if not output.json and one.check is not None:
            _print(one, one.check)
    if output.json and any(one.check is not None for one in found):
        print_json("image-check", [_json(one) for one in found], warnings=_notices(found))
    code = finish(output, _notices(found))
    failed = report_failures([one.failure for one in found if one.failure is not None])
    bad = any(one.check is not None and not one.fine for one in found)
    return failed or (EXIT_FINDINGS if bad else code)


def _notices(found: list[Checked]) -> list[Any]:
    return [notice for one in found for notice in one.notices]


def _print(one: Checked, check: Check) -> None:
    name = safe_text(one.name)
    if one.kept is not None:
        print(
            f"{name}: repaired: {check.corruptions_fixed} corruptions, {check.leaks_fixed} leaks; "
            f"what was changed is kept in {safe_text(str(one.kept))}"
        )
    print(f"{name}: {_state(one, check)}{_clusters(check)}")
    if one.problem is not None:
        print(f"  {safe_text(one.problem.message)}")
    for message in check.messages if check.state != "ok" else ():
        print(f"  {safe_text(message)}")
    if check.state != "ok" and check.said > len(check.messages):
        print(f"  ... {check.said - len(check.messages)} more")


def _state(one: Checked, check: Check) -> str:
    if check.state == "leaks":
        return f"{check.leaks} leaked clusters, which take space and harm nothing (-r leaks)"
    if check.state == "corrupt":
        return f"{check.corruptions} corruptions, {check.leaks} leaked clusters"
    return "ok" if one.problem is None else "its tables are in order, but"


def _clusters(check: Check) -> str:
    if check.allocated_clusters is None or check.total_clusters is None:
        return ""
    text = f"; {check.allocated_clusters} of {check.total_clusters} clusters in use"
    return text + (f", {check.fragmented_clusters} fragmented" if check.fragmented_clusters else "")


def _json(one: Checked) -> dict[str, Any]:
    from dataclasses import asdict

    facts: dict[str, Any] = {"image": one.name, "format": one.format, "state": None}
    if one.check is not None:
        facts |= asdict(one.check)
    error = one.failure
    return facts | {
        "problem": one.problem,
        "kept": one.kept,
        "error": None
        if error is None
        else {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit": error.exit_code,
        },
    }
