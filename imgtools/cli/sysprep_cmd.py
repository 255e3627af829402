"""``imgtools sysprep``: make a guest into a template that can be cloned."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from imgtools.cli.changing import CHANGE_OPTIONS
from imgtools.cli.human import human_size
from imgtools.cli.options import (
    DiskArguments,
    Output,
    disk_options,
    mount_option,
    output_options,
    with_options,
)
from imgtools.cli.render import finish, jsonable, print_columns, print_json, safe_text, tell
from imgtools.errors import RefusedError, UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.api import Operation, Values
    from imgtools.model.engine import Machine
    from imgtools.workflow.changing import How
    from imgtools.workflow.sysprep.registry import Registry
    from imgtools.workflow.sysprep.running import Prepared, Report

EPILOG = """\b
Examples:
  imgtools sysprep --list-operations
  imgtools sysprep -n -a guest.qcow2
  imgtools sysprep -a guest.qcow2 --report guest.sysprep.json
  imgtools sysprep -d mydomain --operations defaults,-ssh-userdir
  imgtools sysprep -a guest.qcow2 --enable ssh-hostkeys,machine-id

All operations are planned on the guest as it is and done in one transaction: when one fails, the
image stays byte for byte as it was (exit 6).  A dry run lists exactly what the real run does.
"""


class _Command(click.Command):
    """Has the options of the operations too, which are loaded only when this command is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not hasattr(self, "_more"):
            self._more = _operation_options()
        return [*self._more, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        operations = _registry().operations
        theirs = {f"--{o.name}" for one in operations for o in one.options}
        rows = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                rows[param.opts[0]] = record
        with formatter.section("Options"):
            formatter.write_dl([row for name, row in rows.items() if name not in theirs])
        for one in operations:
            if one.options:
                with formatter.section(f"Options of {one.name}"):
                    formatter.write_dl([rows[f"--{option.name}"] for option in one.options])


def _registry() -> Registry:
    from imgtools.workflow.sysprep.registry import registry

    return registry()


def _operation_options() -> list[click.Parameter]:
    from imgtools.cli.customizing import click_options

    return click_options(option for one in _registry().operations for option in one.options)


_OPTIONS = [
    click.option(
        "--operations",
        multiple=True,
        metavar="LIST",
        help="Names with commas; -NAME leaves one out; also 'defaults' and 'all'.",
    ),
    click.option("--enable", metavar="LIST", help="Only these operations."),
    click.option(
        "--check",
        is_flag=True,
        help="Change nothing: say whether the guest is safe to clone (as imgtools identity).",
    ),
    click.option("--list-operations", is_flag=True, help="Show the operations and end."),
    click.option(
        "--mount-options",
        metavar="MOUNTPOINT:OPTIONS[;...]",
        help="Options with which filesystems are mounted to be changed, as '/:noatime;/boot:sync'.",
    ),
    click.option(
        "--report",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Keep a record of what was done, as JSON.",
    ),
    *(option for name, option in CHANGE_OPTIONS.items() if name != "diff"),
]


@click.command(
    "sysprep",
    cls=_Command,
    epilog=EPILOG,
    short_help="Make a guest into a template: remove what clones must not share",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@disk_options()
@mount_option
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]")
def command(
    disks: DiskArguments,
    output: Output,
    args: tuple[str, ...],
    enable: str | None,
    operations: tuple[str, ...],
    report: str | None,
    **rest: Any,
) -> int:
    """Remove from a guest what belongs to this one machine, so that it can be cloned.

    Host keys, the machine's id, logs, histories, leases, caches and more: --list-operations shows
    all.  The guest must be off.
    """
    from imgtools.cli.customizing import Hearing
    from imgtools.workflow.changing import How
    from imgtools.workflow.sysprep.registry import choose
    from imgtools.workflow.sysprep.running import sysprep

    for failure in _registry().failures:
        tell(f"operations of {failure.origin} cannot be loaded: {failure.entry}: {failure.why}")
    if rest["list_operations"]:
        _list(output)
        return 0
    if disks.empty:
        raise UsageError(NO_DISK)
    if rest["check"]:
        from imgtools.cli.identity_cmd import run

        return run([disks], output)
    chosen = choose(_registry().operations, enable=enable, operations=operations)
    values = _values(chosen, rest)
    if args:
        raise UsageError(f"what is {args[0]}?", hint="more disks of the guest: -a FILE -a FILE")
    from imgtools.guest.mounting import parse_mount_options, parse_mounts

    hearing = Hearing(output)
    how = How(
        dry_run=rest["dry_run"],
        machine=_machine(values),
        ears=hearing.ears,
        workdir=Path(rest["workdir"]) if rest["workdir"] else None,
        break_overlays=rest["break_overlays"],
        mount_options=parse_mount_options(rest["mount_options"] or ""),
    )
    with hearing.telling(dry_run=how.dry_run), _record(report) as record:
        result = sysprep(disks, chosen, values, how, mounts=parse_mounts(rest["mounts"]))
        document = _document(result, how)
        if record is not None:
            json.dump(jsonable(document), record, indent=2, ensure_ascii=False)
            record.write("\n")
    if output.json:
        print_json("sysprep", document, engine=result.engine, warnings=result.warnings)
    elif not output.quiet or how.dry_run:
        _print(result, how, output)
    return finish(output, result.warnings)


def _values(chosen: tuple[Operation, ...], rest: dict[str, Any]) -> Values:
    """The values of the operations' options; one of an operation that does not run is an error."""
    from imgtools.api import Values
    from imgtools.cli.customizing import given, variable

    names = {one.name for one in chosen}
    values = Values()
    values.given = given(option for one in _registry().operations for option in one.options)
    for one in _registry().operations:
        for option in one.options:
            value = rest[variable(option.name)]
            if value and one.name not in names:
                raise UsageError(
                    f"--{option.name}: the operation {one.name} is not selected",
                    hint=f"--operations defaults,{one.name}",
                )
            values[option.name] = value
    return values


def _machine(values: Values) -> Machine:
    """The appliance that the options of customize need."""
    from imgtools.api import customize_options
    from imgtools.workflow.customizing import wanted

    names = {option.name for option in customize_options()}
    return wanted([one for one in values.given if one[0] in names]).machine


def _list(output: Output) -> None:
    rows = _registry().installed
    if output.json:
        listed = [
            {
                "name": one.operation.name,
                "heading": one.operation.heading,
                "description": one.operation.description,
                "default": one.operation.default,
                "order": one.operation.order,
                "families": one.operation.families,
                "options": [f"--{option.name}" for option in one.operation.options],
                "origin": one.origin,
            }
            for one in sorted(rows, key=lambda one: one.operation.name)
        ]
        print_json("sysprep-operations", listed)
        return
    print_columns(
        [
            (one.operation.name, "*" if one.operation.default else " ", one.operation.heading)
            for one in sorted(rows, key=lambda one: one.operation.name)
        ]
    )


@contextmanager
def _record(name: str | None) -> Iterator[TextIO | None]:
    """The record's file, made before the guest is touched and named when all is done."""
    if name is None:
        yield None
        return
    from imgtools.workflow.tar_out import new_file

    path = Path(name)
    if os.path.lexists(path):
        raise RefusedError(f"{path}: exists already", hint="remove it, or name another --report")
    with new_file(path, force=False) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8", write_through=True)


def _document(result: Report, how: How) -> dict[str, Any]:
    return {
        "committed": result.committed,
        "dry_run": how.dry_run,
        "freed": sum(one.freed for one in result.prepared),
        "operations": [
            {
                "name": one.operation.name,
                "applies": one.applies,
                "freed": one.freed,
                "actions": [
                    {
                        "verb": action.verb,
                        "path": action.path,
                        "freed": action.freed,
                        **({"detail": action.detail} if action.detail else {}),
                    }
                    for action in one.actions
                ],
                "notes": [{"path": note.path, "detail": note.detail} for note in one.notes],
            }
            for one in result.prepared
        ],
    }


def _print(result: Report, how: How, output: Output) -> None:
    did = [one for one in result.prepared if one.actions]
    if how.dry_run or output.verbose:
        _print_actions(result.prepared)
    else:
        print_columns([_row(one) for one in did], right=(1, 2))
        for one in result.prepared:
            for note in one.notes:
                print(f"{one.operation.name}: {safe_text(note.path)}: {safe_text(note.detail)}")
    if not did:
        tell("nothing to do: the guest is so already")
        return
    freed = human_size(sum(one.freed for one in did))
    count = sum(len(one.actions) for one in did)
    said = f"{_plural(count, 'change')} by {_plural(len(did), 'operation')}"
    if how.dry_run:
        tell(f"dry run: {said}; the image is as it was")
    elif result.committed:
        tell(f"{said}, {freed} freed in the guest")
    else:
        tell(f"{said}, by which nothing in the guest is another; the image is as it was")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _print_actions(prepared: Sequence[Prepared]) -> None:
    for one in prepared:
        if one.actions or one.notes:
            print(f"{one.operation.name}:")
        for action in (*one.actions, *one.notes):
            detail = f" ({safe_text(action.detail)})" if action.detail else ""
            print(f"  {action.verb} {safe_text(action.path)}{detail}")


def _row(one: Prepared) -> tuple[str, str, str, str]:
    count = len(one.actions)
    verbs = ", ".join(sorted({action.verb for action in one.actions}))
    return one.operation.name, str(count), human_size(one.freed), verbs
