"""``imgtools info``: what an image's header says, its backing chain, and who uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, output_options
from imgtools.cli.render import finish, print_json, report_failures

if TYPE_CHECKING:
    from imgtools.errors import ImgtoolsError
    from imgtools.image.header import Snapshot
    from imgtools.workflow.info import ImageReport, LayerReport

EPILOG = """\b
Examples:
  imgtools info guest.qcow2
  imgtools info --json overlay.qcow2 | jq '.result[0].layers[].path'
  imgtools info --untrusted upload.vmdk
  imgtools info --format raw -a disk.img
  imgtools info -d mydomain

A damaged image, or one that names files it may not, is shown as far as that is safe; the exit
status then says what is wrong (4 bad image, 8 refused).
"""


@click.command(
    "info", epilog=EPILOG, short_help="Show format, sizes, backing chain and use of images"
)
@disk_options(positional="all")
@output_options()
@click.argument("args", nargs=-1, metavar="[IMAGE]...")
def command(
    disks: DiskArguments,
    output: Output,
    args: tuple[str, ...],  # noqa: ARG001 (all of them have become disks)
) -> int:
    """Show format, sizes, backing chain, snapshots and use of disk images.

    The header is checked before any other program opens the image, and nothing that it names is
    opened unless that is an image itself.
    """
    from imgtools.cli.info_text import print_report
    from imgtools.workflow.info import describe

    reports: list[ImageReport] = []
    for report in describe(disks):
        if not output.json and (report.layers or report.remote):
            print_report(report, first=not reports)
        reports.append(report)
    warnings = [warning for report in reports for warning in report.warnings]
    if output.json and any(report.layers or report.remote for report in reports):
        print_json("info", [_json_report(report) for report in reports], warnings=warnings)
    code = finish(output, warnings)
    failures = [report.error for report in reports if report.error is not None]
    return report_failures(failures) or code


def _json_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "date_seconds": snapshot.date_seconds,
        "vm_state_size": snapshot.vm_state_size,
        "virtual_size": snapshot.virtual_size,
    }


def _json_report(report: ImageReport) -> dict[str, object]:
    return {
        "image": report.name,
        "remote": report.remote,
        "format": report.format,
        "virtual_size": report.virtual_size,
        "in_use": report.in_use,
        "layers": [_json_layer(layer) for layer in report.layers],
        "error": _json_error(report.error),
    }


def _json_error(error: ImgtoolsError | None) -> dict[str, object] | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_code,
    }


def _json_layer(layer: LayerReport) -> dict[str, object]:
    header = layer.header
    qemu: Mapping[str, object] | None = None
    if layer.qemu is not None:
        qemu = {
            "virtual_size": layer.qemu.virtual_size,
            "actual_size": layer.qemu.actual_size,
            "cluster_size": layer.qemu.cluster_size,
            "dirty": layer.qemu.dirty,
            "format_specific": layer.qemu.format_specific,
        }
    return {
        "path": header.path.absolute(),
        "format": header.format,
        "format_stated": header.stated,
        "version": header.version,
        "variant": header.variant or None,
        "virtual_size": header.virtual_size,
        "file_size": header.file_size,
        "cluster_size": header.cluster_size,
        "backing_file": header.backing_file,
        "backing_format": header.backing_format,
        "data_file": header.data_file,
        "data_file_raw": header.data_file_raw,
        "extents": header.extents,
        "files": layer.extents,
        "encryption": header.encryption,
        "compression": header.compression,
        "dirty": header.dirty,
        "features": header.features,
        "snapshots": [_json_snapshot(snapshot) for snapshot in header.snapshots],
        "bitmaps": header.bitmaps,
        "locks": layer.locks,
        "problems": header.problems,
        "qemu": qemu,
    }
