"""``imgtools image compare``: do two images show the same?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imgtools.cli.image.keys import key_option, read_key, refuse_two_from_stdin
from imgtools.cli.image.requests import requests_of
from imgtools.cli.image.words import SOURCE, format_option
from imgtools.cli.options import Output, output_options
from imgtools.cli.progress import Part, progress_option
from imgtools.cli.render import finish, print_json, safe_text
from imgtools.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from imgtools.cli.progress import Kind
    from imgtools.workflow.comparing import Compared

EPILOG = """\b
Examples:
  imgtools image compare old.qcow2 new.vmdk
  imgtools image compare -s a.qcow2 b.qcow2
  imgtools image compare -f raw disk.img copy.qcow2
  imgtools image compare --key-file key.txt secret.qcow2 plain.qcow2

What a guest sees is compared, whatever the formats.  An image that goes on with zeros where the
other ends is the same, with a warning; -s (and --strict) refuses that, and another allocation.
Exit status: 0 the same, 10 different (where is printed), 4 one cannot be read.
"""


@click.command("compare", epilog=EPILOG, short_help="Compare what two images show to a guest")
@click.option("-s", "exact", is_flag=True, help="Sizes and allocation count as well.")
@format_option("-f", "format_a", kind=SOURCE, help="Format of A.")
@format_option("-F", "format_b", kind=SOURCE, help="Format of B.")
@key_option("--key-file", help="Key of A if it is encrypted, and of B unless that has its own.")
@key_option("--key-file-b", help="Key of B.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of an image's folder.")
@progress_option
@output_options()
@click.argument("a")
@click.argument("b")
def command(
    *,
    output: Output,
    exact: bool,
    format_a: str | None,
    format_b: str | None,
    key_file: str | None,
    key_file_b: str | None,
    untrusted: bool,
    progress: Kind,
    a: str,
    b: str,
) -> int:
    """Compare the images A and B."""
    from imgtools.workflow.comparing import compare_images

    refuse_two_from_stdin(key_file, key_file_b)
    (first,), (second,) = requests_of([a], format_a), requests_of([b], format_b)
    found = compare_images(
        first,
        second,
        strict=exact or output.strict,
        untrusted=untrusted,
        given=(read_key(key_file), read_key(key_file_b, "--key-file-b")),
        make_report=lambda total: Part(progress, total, name="compare", quiet=output.quiet),
    )
    if output.json:
        result = {
            "same": found.difference is None,
            "difference": found.difference,
            "sizes": list(found.sizes),
        }
        print_json("image-compare", result, warnings=found.notices)
    elif not output.quiet:
        print(safe_text(_text(found)))
    code = finish(output, found.notices)
    return EXIT_FINDINGS if found.difference is not None else code


def _text(found: Compared) -> str:
    difference = found.difference
    if difference is None:
        return "the same"
    if difference.kind == "size":
        return f"different: sizes of {found.sizes[0]} and {found.sizes[1]} bytes"
    return f"different: {difference.kind} at byte {difference.offset}"
