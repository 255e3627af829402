"""``imgtools image amend``: other options and keys for an image that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from imgtools.cli.changing import CHANGE_OPTIONS
from imgtools.cli.image.keys import read_key, refuse_two_from_stdin
from imgtools.cli.options import Output, make_request, output_options, with_options
from imgtools.cli.render import finish, print_json, safe_text

EPILOG = """\b
Examples:
  imgtools image amend guest.qcow2
  imgtools image amend -o compat=1.1,lazy_refcounts=on guest.qcow2
  imgtools image amend --key-file old.txt --add-key new.txt --remove-key old.txt secret.qcow2

Without anything to change the options are shown.  The change is a transaction: killed at any point,
the image has the old options or the new ones.  An added key is there before one is removed.
"""

_OPTIONS = [
    click.option(
        "-o",
        "--option",
        "words",
        multiple=True,
        metavar="NAME=VALUE,...",
        help="compat, lazy_refcounts, refcount_bits of a qcow2.",
    ),
    click.option("--key-file", metavar="FILE", help="A key that opens the image; - is stdin."),
    click.option("--add-key", metavar="FILE", help="Add the key in FILE to a free slot (LUKS)."),
    click.option("--remove-key", metavar="FILE", help="Remove the key in FILE from its slot."),
    click.option(
        "--iter-time",
        type=click.IntRange(1, 600_000),
        metavar="MS",
        help="Time that trying the new key is to take, in milliseconds.",
    ),
    click.option("-n", "--dry-run", is_flag=True, help="Try it on an overlay, change nothing."),
    click.option("--format", "image_format", type=click.Choice(["qcow2", "luks"]), help="Format."),
    click.option("--untrusted", is_flag=True, help="Follow no reference out of its folder."),
    CHANGE_OPTIONS["workdir"],
]


@click.command(
    "amend",
    epilog=EPILOG,
    short_help="Show or change options and keys of a qcow2 or LUKS image",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@output_options()
@click.argument("image")
def command(*, output: Output, image: str, **options: Any) -> int:
    """Show the options of IMAGE, or change them."""
    from imgtools.image.options import parse_options
    from imgtools.workflow.image_amend import Amending, amend

    files = {name: options.pop(name) for name in ("key_file", "add_key", "remove_key")}
    refuse_two_from_stdin(*files.values())
    keys = {name: read_key(file, f"--{name.replace('_', '-')}") for name, file in files.items()}
    workdir = options.pop("workdir")
    asked = Amending(
        request=make_request(image, options.pop("image_format")),
        options=parse_options(options.pop("words")),
        key=keys["key_file"],
        add_key=keys["add_key"],
        remove_key=keys["remove_key"],
        workdir=Path(workdir) if workdir else None,
        **options,
    )
    done = amend(asked)
    if output.json:
        document = {
            "image": done.image,
            "format": done.format,
            "before": done.before,
            "after": done.after,
            "committed": done.after is not None,
            "dry_run": asked.dry_run,
        }
        print_json("image-amend", document)
    elif asked.idle:
        _print(done.before, "")
    elif not output.quiet:
        how = "dry run: nothing done" if asked.dry_run else "amended"
        print(safe_text(f"{done.image}: {how}"))
    return finish(output, ())


def _print(found: Any, indent: str) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{indent}{safe_text(str(name))}:")
            _print(value, f"{indent}  ")
        elif isinstance(value, list):
            active = sum(1 for one in value if isinstance(one, dict) and one.get("active"))
            print(f"{indent}{safe_text(str(name))}: {len(value)}, {active} active")
        else:
            print(f"{indent}{safe_text(str(name))}: {safe_text(str(value))}")
