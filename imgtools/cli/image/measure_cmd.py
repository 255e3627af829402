"""``imgtools image measure``: how much space a new image would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.image.keys import key_option, read_key
from imgtools.cli.image.words import SOURCE, TARGET, Size, format_option
from imgtools.cli.options import Output, make_request, output_options, with_options
from imgtools.errors import UsageError
from imgtools.image.target import parse_options

if TYPE_CHECKING:
    from imgtools.model.notices import Notice

EPILOG = """\b
Examples:
  imgtools image measure -O qcow2 guest.vmdk
  imgtools image measure -O raw -f qcow2 guest.qcow2
  imgtools image measure -O qcow2 -o cluster_size=1M --size 100G
  imgtools image measure --json -O qcow2 -l before-upgrade guest.qcow2

In bytes: required is what the file takes for the data there are now, fully allocated what it
takes when the guest has written everywhere.  qemu-img can measure raw, qcow2 and luks.
"""

_OPTIONS = [
    format_option(
        "-f",
        "--format",
        "source_format",
        kind=SOURCE,
        help="Format of the source; otherwise its header says it.",
    ),
    format_option(
        "-O",
        "--output-format",
        "target_format",
        kind=TARGET,
        required=True,
        help="Format of the new image.",
    ),
    click.option(
        "-o",
        "options",
        multiple=True,
        metavar="NAME=VALUE,...",
        help="Options of the new format, as of qemu-img create.",
    ),
    key_option("--source-key-file", help="Key of an encrypted source."),
    click.option(
        "--size", type=Size(), help="Measure an empty image of this size (bytes, or as 100G)."
    ),
    click.option(
        "-l",
        "--snapshot",
        metavar="NAME|ID",
        help="Measure a copy of an internal snapshot, named as for convert.",
    ),
    click.option(
        "--untrusted",
        is_flag=True,
        help="The image comes from a stranger: follow no reference out of its folder.",
    ),
]


@click.command(
    "measure",
    epilog=EPILOG,
    short_help="Tell how much space a new image would take",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@output_options()
@click.argument("args", nargs=-1, metavar="[SOURCE]")
def command(output: Output, args: tuple[str, ...], **words: Any) -> int:
    """Tell how much space a copy of SOURCE in another format would take, or an empty image."""
    from imgtools.cli.render import finish, print_columns, print_json
    from imgtools.workflow.measuring import Plan, measure_empty, measure_image

    if len(args) != (0 if words["size"] is not None else 1):
        raise UsageError("one SOURCE, or --size", hint="imgtools image measure --help")
    plan = Plan(target_format=words["target_format"], options=parse_options(words["options"]))
    notices: list[Notice] = []
    if words["size"] is not None:
        if any(
            words[name] is not None for name in ("snapshot", "source_format", "source_key_file")
        ):
            raise UsageError("--size: not with -f, -l or --source-key-file")
        found = measure_empty(words["size"], plan)
    else:
        request = make_request(args[0], words["source_format"])
        found, notices = measure_image(
            request,
            plan,
            snapshot=words["snapshot"],
            untrusted=words["untrusted"],
            key=read_key(words["source_key_file"], "--source-key-file"),
        )
    if output.json:
        print_json("measure", found, warnings=notices)
    else:
        rows = [("Required", found.required), ("Fully allocated", found.fully_allocated)]
        if found.bitmaps is not None:
            rows.append(("Bitmaps", found.bitmaps))
        print_columns(rows, right=(1,), gap="  ")
    return finish(output, notices)
