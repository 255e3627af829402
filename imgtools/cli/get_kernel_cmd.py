"""``imgtools get-kernel``: the newest kernel of a guest and its initramfs."""

from __future__ import annotations

from pathlib import Path

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, output_options
from imgtools.cli.render import finish, print_json, safe_text, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

EPILOG = """\b
Examples:
  imgtools get-kernel -a guest.qcow2
  imgtools get-kernel -d mydomain -o boot/ --unversioned-names --prefix mydomain
"""


@click.command(
    "get-kernel",
    epilog=EPILOG,
    short_help="Copy the newest kernel and initramfs",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@click.option("-o", "--output", "folder", metavar="DIR", default=".", help="Into this folder.")
@click.option("--unversioned-names", is_flag=True, help="Names up to the first dash: vmlinuz.")
@click.option("--prefix", metavar="TEXT", default="", help="Put TEXT and a dash before names.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]")
def command(
    disks: DiskArguments,
    output: Output,
    args: tuple[str, ...],
    folder: str,
    unversioned_names: bool,
    prefix: str,
    force: bool,
) -> int:
    """Copy the newest kernel of a guest, and its initramfs, into a folder of this host."""
    if disks.empty:
        raise UsageError(NO_DISK)
    if args:
        raise UsageError(f"{args[0]}: one word too many", hint="imgtools get-kernel GUEST -o DIR")
    from imgtools.workflow.get_kernel import get_kernel

    outcome = get_kernel(
        disks, Path(folder), unversioned=unversioned_names, prefix=prefix, force=force
    )
    copied = outcome.result
    tell_engine(output, outcome.engine, outcome.reason)
    if output.json:
        files = [{"guest_path": path, "path": target} for path, target in copied.files]
        result = {"version": copied.version, "files": files}
        print_json("get-kernel", result, engine=outcome.engine, warnings=outcome.warnings)
    elif not output.quiet:
        for path, target in copied.files:
            print(f"download: {safe_text(path)} -> {safe_text(str(target))}")
    return finish(output, outcome.warnings)
