"""``imgtools filesystems``: virt-filesystems' table, CSV and options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from imgtools.cli.human import human_size
from imgtools.cli.options import DiskArguments, Output, disk_options, output_options, with_options
from imgtools.cli.render import finish, print_csv, print_json, safe_text, tell_engine
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.workflow.filesystems import Row

EPILOG = """\b
Examples:
  imgtools filesystems -a guest.qcow2
  imgtools filesystems -l -h --all --uuids -d mydomain
  imgtools filesystems --csv --long --parts --blkdevs -a guest.qcow2
"""

_KINDS = [
    click.option("--all", "everything", is_flag=True, help="All of the below."),
    click.option("--filesystems", is_flag=True, help="Mountable filesystems (the default)."),
    click.option("--extra", is_flag=True, help="These, and swap and unrecognised volumes."),
    click.option(
        "--lvs", "--logvols", "--logical-volumes", is_flag=True, help="LVM logical volumes."
    ),
    click.option("--vgs", "--volgroups", "--volume-groups", is_flag=True, help="Volume groups."),
    click.option("--pvs", "--physvols", "--physical-volumes", is_flag=True, help="PVs."),
    click.option("--parts", "--partitions", "partitions", is_flag=True, help="Partitions."),
    click.option("--blkdevs", "--block-devices", "devices", is_flag=True, help="Whole disks."),
]


@click.command(
    "filesystems",
    epilog=EPILOG,
    short_help="List filesystems, partitions, LVM and disks",
    context_settings={"help_option_names": ["--help"]},
)
@disk_options()
@click.option("-l", "--long", "long_", is_flag=True, help="Types, sizes, labels, parents.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes like 1.5G.")
@with_options(_KINDS)
@click.option("--uuid", "--uuids", "uuids", is_flag=True, help="A UUID column with --long.")
@click.option("--csv", is_flag=True, help="Comma-separated values.")
@click.option("--no-title", is_flag=True, help="No title line with --long.")
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]")
def command(disks: DiskArguments, output: Output, args: tuple[str, ...], **flags: bool) -> int:
    """List the filesystems, partitions, logical volumes and disks of a guest."""
    if args:
        raise UsageError(f"{args[0]}: one argument too many")
    if flags["csv"] and flags["human"]:
        raise UsageError("-h and --csv cannot be combined", hint="spreadsheets misread 1.5G")
    if output.json and (flags["csv"] or flags["human"]):
        raise UsageError("--json cannot be combined with --csv or -h")
    from imgtools.workflow.filesystems import Wanted, filesystems

    wanted = Wanted(**_wanted(flags), sizes=flags["long_"] or output.json)
    outcome = filesystems(disks, wanted)
    tell_engine(output, outcome.engine, outcome.reason)
    if output.json:
        print_json("filesystems", outcome.result, engine=outcome.engine, warnings=outcome.warnings)
    else:
        _print(_table(outcome.result, wanted.filesystems, wanted.partitions, flags), flags["csv"])
    return finish(output, outcome.warnings)


def _wanted(flags: dict[str, bool]) -> dict[str, bool]:
    """Which rows; nothing named means filesystems."""
    every = flags["everything"]
    kinds = {kind: every or flags[kind] for kind in ("lvs", "vgs", "pvs", "partitions", "devices")}
    extra = every or flags["extra"]
    return {
        **kinds,
        "extra": extra,
        "filesystems": extra or flags["filesystems"] or not any(kinds.values()),
    }


def _table(
    rows: Sequence[Row], vfs: bool, mbr: bool, flags: dict[str, bool]
) -> list[list[str | None]]:
    """The columns of virt-filesystems (cat/filesystems.c), title first; None for not applicable."""
    if not flags["long_"]:
        return [[row.name] for row in rows]
    size = human_size if flags["human"] else str
    columns: list[tuple[str, bool, Callable[[Row], str | None]]] = [
        ("Name", True, lambda row: row.name),
        ("Type", True, lambda row: row.type),
        ("VFS", vfs, lambda row: row.vfs_type),
        ("Label", vfs, lambda row: row.label),
        ("MBR", mbr, lambda row: None if row.mbr_id is None else f"{row.mbr_id:02x}"),
        ("Size", True, lambda row: None if row.size is None else size(row.size)),
        ("Parent", True, lambda row: ",".join(row.parents)),
        ("UUID", flags["uuids"], lambda row: row.uuid),
    ]
    shown = [(title, value) for title, wanted, value in columns if wanted]
    table: list[list[str | None]] = [[value(row) for _, value in shown] for row in rows]
    if not flags["no_title"]:
        table.insert(0, [title for title, _ in shown])
    return table


def _print(table: list[list[str | None]], csv: bool) -> None:
    if csv:
        print_csv([[cell or "" for cell in row] for row in table])
        return
    # virt-filesystems drops a column without any value, prints "-" for an empty one, and takes
    # one space between columns instead of two when the lines get long.
    columns = [column for column in zip(*table, strict=True) if any(c is not None for c in column)]
    cells = [[safe_text(cell) if cell else "-" for cell in column] for column in columns]
    widths = [max(map(len, column)) for column in cells]
    gap = " " if sum(widths) + 2 * _MAX_COLUMNS > _LONG_LINE else "  "
    for row in zip(*cells, strict=True):
        print(gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


_MAX_COLUMNS = 8
_LONG_LINE = 72
