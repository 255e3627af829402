"""``imgtools image chain``: the doctor of backing chains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.image.words import local_path
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import finish, print_json, tell
from imgtools.errors import EXIT_FINDINGS, UsageError

if TYPE_CHECKING:
    from imgtools.image.member import Identity
    from imgtools.workflow.chains import Checkup

EPILOG = """\b
Examples:
  imgtools image chain /var/lib/libvirt/images
  imgtools image chain overlay.qcow2
  imgtools image chain --pool default --dot | dot -Tsvg >chains.svg
  imgtools image chain --recursive --json /srv/vm | jq -r '.result.findings[].command'
  imgtools image chain --fix /srv/vm

Only headers are read.  --fix does what needs no choice: it stores a backing format that is not
stored, removes what killed runs left half made, and finishes interrupted changes.  Exit status: 0
nothing found (or all of it mended), 10 findings.
"""


@click.command("chain", epilog=EPILOG, short_help="Draw backing chains, and say what is wrong")
@click.option("--pool", metavar="NAME", help="Look at the folder of a libvirt pool.")
@click.option("-c", "--connect", metavar="URI", help="libvirt connection (default: this host's).")
@click.option("-r", "--recursive", is_flag=True, help="Folders below as well.")
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--fix", is_flag=True, help="Mend what needs no choice.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of an image's folder.")
@output_options()
@click.argument("place", required=False, metavar="[DIR|IMAGE]")
def command(
    output: Output,
    pool: str | None,
    connect: str | None,
    recursive: bool,
    dot: bool,
    fix: bool,
    untrusted: bool,
    place: str | None,
) -> int:
    """Draw which image rests on which, and say what is wrong with them.

    DIR (default: this folder) is scanned for images; of IMAGE its own chain is shown, and all that
    rests on it in its folder.  Each finding comes with the command that mends it.
    """
    from imgtools.workflow.chains import Where, check_up

    if dot and output.json:
        raise UsageError("--dot and --json cannot be mixed")
    if place == "":
        raise UsageError("the name of the folder is empty")
    found = check_up(
        Where(
            place=local_path(place) if place is not None else None,
            pool=pool,
            connect=connect,
            recursive=recursive,
            untrusted=untrusted,
        ),
        fix=fix,
    )
    if output.json:
        print_json("image-chain", _result(found), warnings=found.notices)
    else:
        from imgtools.cli.image.chain_text import print_dot, print_findings, print_forest

        if dot:
            print_dot(found)
        else:
            print_forest(found)
            print_findings(found)
    code = finish(output, found.notices)
    for one in found.findings:
        if one.failure is not None:
            tell(f"not mended: {one.failure}")
    return EXIT_FINDINGS if found.left else code


def _result(found: Checkup) -> dict[str, Any]:
    forest = found.forest
    shown = sorted(found.shown, key=forest.path)
    return {
        "folder": found.folder,
        "images": [_image(found, one) for one in shown],
        "findings": [
            {
                "code": one.finding.code,
                "image": one.finding.image,
                "message": one.finding.message,
                "hint": one.finding.hint,
                "command": one.finding.command,
                "fixable": one.finding.mend is not None,
                "fixed": one.mended,
                "error": one.failure,
            }
            for one in found.findings
        ],
    }


def _image(found: Checkup, identity: Identity) -> dict[str, Any]:
    member = found.forest.members[identity]
    link = found.forest.links.get(identity)
    parent = None
    if link is not None:
        parent = found.forest.path(link.parent) if link.parent is not None else link.target
    owner = found.forest.parts.get(identity)
    locks = member.locks
    return {
        "path": member.path,
        "format": member.format,
        "virtual_size": member.virtual_size,
        "file_size": member.file_size,
        "actual_size": member.actual_size,
        "snapshots": member.snapshots,
        "depth": found.forest.depths.get(identity, 0),
        "backing_file": member.backing_file,
        "backing_format": member.backing_format,
        "parent": parent,
        "parent_found": link is not None and link.parent is not None,
        "part_of": None if owner is None else found.forest.path(owner),
        "outside": identity in found.forest.outside,
        "files": [os.fspath(path) for path in member.parts],
        "in_use": "writing" if locks.writer else "reading" if locks.held else None,
        "domains": [
            {"name": use.domain, "active": use.active, "snapshot": use.snapshot}
            for use in found.uses.get(identity, ())
        ],
    }
