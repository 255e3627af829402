"""``imgtools image convert``, also ``imgtools convert``: copy disks into another format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.image.keys import key_option, read_key, refuse_two_from_stdin
from imgtools.cli.image.words import SOURCE, TARGET, Size, format_option
from imgtools.cli.options import URI_SCHEMES, Output, make_request, output_options, with_options
from imgtools.cli.progress import Kind, Part, progress_option
from imgtools.errors import UsageError
from imgtools.image.target import WRITABLE, parse_options
from imgtools.model.disks import DiskRequest
from imgtools.model.notices import Notice

if TYPE_CHECKING:
    from imgtools.workflow.convert_many import Failed
    from imgtools.workflow.converting import Converted, How

EPILOG = """\b
Examples:
  imgtools convert -O qcow2 disk.vmdk disk.qcow2
  imgtools convert -c -O qcow2 --verify guest.qcow2 backup.qcow2
  imgtools convert -f raw -O vhdx disk.img disk.vhdx
  imgtools convert -l before-upgrade -O raw guest.qcow2 old.img
  imgtools convert -O qcow2 -o cluster_size=1M,compat=1.1 a.vdi b.vdi copies/
  imgtools convert -O qcow2 -d mydomain copies/
  imgtools convert -f vvfat -O raw fat:floppy:folder/ floppy.img
  imgtools convert -O qcow2 nbd://host:10809/export copy.qcow2
  imgtools convert -O luks --target-key-file key.txt disk.img disk.luks

The copy holds the whole backing chain.  It appears under its name when it is complete; until then,
and after a crash, there is nothing (or, with --force, the older file).  Only -n and block devices
are written in place.  A source that another program is writing is refused.
"""

_OPTIONS = [
    format_option(
        "-f",
        "--format",
        "source_format",
        kind=SOURCE,
        help="Format of the sources; otherwise their headers say it.",
    ),
    format_option(
        "-O",
        "--output-format",
        "target_format",
        kind=TARGET,
        required=True,
        help=f"Format of the copy: {', '.join(WRITABLE)} (vhd is vpc).",
    ),
    click.option(
        "-o",
        "options",
        multiple=True,
        metavar="NAME=VALUE,...",
        help="Options of the new format, as of qemu-img create.",
    ),
    click.option("-c", "--compress", is_flag=True, help="Compress the data (qcow2, vmdk)."),
    click.option(
        "-l",
        "--snapshot",
        metavar="NAME|ID",
        help="Copy an internal snapshot: its id or name, or snapshot.id=ID, snapshot.name=NAME.",
    ),
    click.option("--bitmaps", is_flag=True, help="Copy the dirty bitmaps, too (qcow2)."),
    click.option(
        "--skip-broken-bitmaps", is_flag=True, help="Leave out bitmaps that are inconsistent."
    ),
    click.option(
        "--salvage", is_flag=True, help="Where the source cannot be read, write zeros and go on."
    ),
    click.option(
        "-n",
        "no_create",
        is_flag=True,
        help="Write onto a target that exists, in place (with --force).",
    ),
    click.option(
        "--target-is-zero",
        is_flag=True,
        help="With -n: do not write zeros; refused unless the target is all zeros.",
    ),
    click.option(
        "-S",
        "sparse",
        type=Size(least=0),
        help="Zeros of this length become holes (4K); 0 writes them all.",
    ),
    click.option(
        "-W",
        "out_of_order",
        is_flag=True,
        help="Write out of order: faster to devices, may fragment files.",
    ),
    click.option(
        "-m",
        "coroutines",
        type=click.IntRange(1, 16),
        help="How many pieces are copied at once (8; from a web or ftp server always 1).",
    ),
    click.option("-r", "--rate-limit", "rate", type=Size(), help="Bytes a second, at most."),
    click.option(
        "-p", "shown", is_flag=True, help="Accepted: progress is shown on a terminal anyway."
    ),
    click.option(
        "--verify", is_flag=True, help="Compare the copy with its source before it gets its name."
    ),
    click.option("--force", is_flag=True, help="Replace or overwrite a target that exists."),
    key_option("--source-key-file", help="Key of an encrypted source."),
    key_option("--target-key-file", help="Encrypt the copy (qcow2, luks) by this key."),
    click.option(
        "-d",
        "--domain",
        metavar="NAME|UUID",
        help="Copy all disks of a libvirt domain into the folder TARGET.",
    ),
    click.option(
        "--connect", metavar="URI", help="libvirt connection for -d.  [env: IMGTOOLS_CONNECT]"
    ),
    click.option(
        "--untrusted",
        is_flag=True,
        help="The sources come from a stranger: follow no reference out of their folder.",
    ),
    progress_option,
]


@click.command(
    "convert",
    epilog=EPILOG,
    short_help="Copy disks into another image format",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@output_options()
@click.argument("args", nargs=-1, metavar="SOURCE... TARGET")
def command(output: Output, args: tuple[str, ...], **words: Any) -> int:
    """Copy the disk SOURCE into the new image TARGET, in any format that qemu-img can write.

    Several sources, or the disks of a domain, are copied into a folder.
    """
    from contextlib import AbstractContextManager

    from imgtools.image.job import Report

    how = _how(words)
    requests, target, notices = _named(args, words)
    kind: Kind = words["progress"]

    def show(name: str, size: int) -> AbstractContextManager[Report]:
        return Part(kind, size, name=name, quiet=output.quiet)

    if words["domain"] is not None or len(requests) > 1 or _is_folder(target):
        from imgtools.workflow.convert_many import into_folder

        results = into_folder(requests, Path(target), how, show)
    else:
        from imgtools.workflow.converting import convert_image

        results = [convert_image(requests[0], Path(target), how, show)]
    return _finish(output, results, notices)


def _how(words: dict[str, Any]) -> How:
    from imgtools.image.convert import Writing
    from imgtools.workflow.converting import How, check

    keys = words["source_key_file"], words["target_key_file"]
    refuse_two_from_stdin(*keys)
    writing = Writing(
        compress=words["compress"],
        bitmaps=words["bitmaps"],
        skip_broken_bitmaps=words["skip_broken_bitmaps"],
        salvage=words["salvage"],
        out_of_order=words["out_of_order"],
        coroutines=words["coroutines"],
        sparse=words["sparse"],
        rate=words["rate"],
    )
    how = How(
        target_format=words["target_format"],
        options=parse_options(words["options"]),
        writing=writing,
        snapshot=words["snapshot"],
        no_create=words["no_create"],
        target_is_zero=words["target_is_zero"],
        verify=words["verify"],
        force=words["force"],
        untrusted=words["untrusted"],
        source_key=read_key(keys[0], "--source-key-file", may_be_empty=True),
        target_key=read_key(keys[1], "--target-key-file", may_be_empty=True),
    )
    check(how)
    return how


def _named(
    args: tuple[str, ...], words: dict[str, Any]
) -> tuple[list[DiskRequest], str, tuple[Notice, ...]]:
    """The sources, the target, and what is to be said of the sources."""
    domain = words["domain"]
    if len(args) < (1 if domain else 2):
        raise UsageError("which source, and which target?", hint="imgtools convert --help")
    *sources, target = args
    if target.partition("://")[0] in URI_SCHEMES:
        raise UsageError(
            f"{target}: a copy is a file or block device of this host", hint="name it without a URL"
        )
    if domain is None:
        return [make_request(one, words["source_format"]) for one in sources], target, ()
    if sources or words["source_format"]:
        raise UsageError("-d: the domain names its disks and their formats", hint="-d NAME FOLDER/")
    if not _is_folder(target):
        raise UsageError(f"{target}: is no folder", hint="-d copies into a folder; mkdir it first")
    from imgtools.config import load
    from imgtools.workflow.convert_many import disks_of_domain

    requests, notices = disks_of_domain(domain, connect=words["connect"] or load().connect)
    return list(requests), target, notices


def _is_folder(target: str) -> bool:
    return target.endswith("/") or Path(target).is_dir()


def _finish(output: Output, results: list[Converted | Failed], notices: tuple[Notice, ...]) -> int:
    from imgtools.cli.render import finish, print_json, report_failures
    from imgtools.workflow.convert_many import Failed

    failures = [one.error for one in results if isinstance(one, Failed)]
    done = [one for one in results if not isinstance(one, Failed)]
    warnings = [*notices, *(notice for one in done for notice in one.warnings)]
    if output.json:
        if done or not failures:
            print_json("convert", [_row(one) for one in results], warnings=warnings)
    else:
        _print(results, output)
    code = finish(output, warnings)
    return report_failures(failures) or code


def _row(one: Converted | Failed) -> dict[str, Any]:
    from imgtools.workflow.convert_many import Failed

    if isinstance(one, Failed):
        error = {"code": one.error.code, "message": one.error.message, "exit": one.error.exit_code}
        return {"source": one.source, "target": one.target, "error": error}
    return {
        "source": one.source,
        "source_format": one.source_format,
        "target": one.target,
        "target_format": one.target_format,
        "virtual_size": one.virtual_size,
        "actual_size": one.actual_size,
        "verified": one.verified,
        "error": None,
    }


def _print(results: list[Converted | Failed], output: Output) -> None:
    """A line for each copy; a single one speaks only with -v, as qemu-img does."""
    from imgtools.cli.human import human_size
    from imgtools.cli.render import print_columns
    from imgtools.workflow.convert_many import Failed

    if output.quiet or (len(results) == 1 and not output.verbose):
        return
    rows: list[tuple[str, ...]] = [("Source", "Target", "Format", "Virtual", "Stored")]
    for one in results:
        if isinstance(one, Failed):
            rows.append((one.source, "not converted", "-", "-", "-"))
        else:
            sizes = human_size(one.virtual_size), human_size(one.actual_size)
            rows.append((os.fspath(one.source), os.fspath(one.target), one.target_format, *sizes))
    print_columns(rows, right=(3, 4), gap="  ")
