"""``imgtools inspect``: which operating systems are on the disks, and what they are made of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, output_options
from imgtools.cli.render import finish, print_columns, print_json, safe_text, tell_engine
from imgtools.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from imgtools.guest.inspection import Application, Inspection, User

EPILOG = """\b
Examples:
  imgtools inspect -a guest.qcow2
  imgtools inspect -d mydomain --json
  imgtools inspect -a guest.qcow2 --xml > guest.xml
  imgtools inspect -a guest.qcow2 --xpath '//application/name/text()'
  imgtools inspect --xpath 'string(//hostname)' < guest.xml
"""
MAX_STDIN = 256 << 20
LABEL_WIDTH = 14


@click.command(
    "inspect",
    epilog=EPILOG,
    short_help="Show the operating systems on the disks",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@click.option("--xml", is_flag=True, help="virt-inspector's XML document.")
@click.option(
    "--xpath",
    metavar="QUERY",
    help="Answer a query on that document; without a guest, on the one on stdin.",
)
@click.option("--no-applications", is_flag=True, help="Leave the packages out (faster).")
@click.option("--no-icon", is_flag=True, help="Leave the icon out of the XML.")
@click.option("--applications", is_flag=True, help="List the packages in the table, too.")
@click.option("--services", is_flag=True, help="List the enabled services in the table, too.")
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]")
def command(
    *,
    disks: DiskArguments,
    output: Output,
    xml: bool,
    xpath: str | None,
    no_applications: bool,
    no_icon: bool,
    applications: bool,
    services: bool,
    args: tuple[str, ...],
) -> int:
    """Show which operating systems are on the disks, and what they are made of."""
    if args:
        raise UsageError(f"{args[0]}: one argument too many")
    if (xml or xpath is not None) and output.json:
        raise UsageError("--json cannot be combined with --xml or --xpath")
    if applications and no_applications:
        raise UsageError("--applications and --no-applications exclude each other")
    if xpath is not None and not disks.disks and not disks.domains:
        return _query_stdin(xpath)
    from imgtools.workflow.inspect import inspect

    as_xml = xml or xpath is not None
    outcome = inspect(
        disks, applications=not no_applications, icon=(as_xml or output.json) and not no_icon
    )
    guests = outcome.result
    tell_engine(output, outcome.engine, outcome.reason)
    if output.json:
        print_json("inspect", guests, engine=outcome.engine, warnings=outcome.warnings)
    elif as_xml:
        _print_xml(guests, xpath, applications=not no_applications)
    else:
        for index, guest in enumerate(guests):
            print("\n" * bool(index), end="")
            _print_guest(guest, applications=applications, services=services)
    return finish(output, outcome.warnings)


# --- XML -----------------------------------------------------------------------------------------


def _print_xml(guests: Sequence[Inspection], query: str | None, *, applications: bool) -> None:
    from imgtools.report.inspector_xml import document_bytes, inspector_tree, xpath

    root = inspector_tree(guests, applications=applications)
    if query is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(document_bytes(root))
        sys.stdout.buffer.flush()
    else:
        _print_answers(xpath(root, query))


def _query_stdin(query: str) -> int:
    from imgtools.report.inspector_xml import parse_document, xpath

    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise UsageError(f"standard input is larger than {MAX_STDIN >> 20} MiB")
    _print_answers(xpath(parse_document(data), query))
    return EXIT_OK


def _print_answers(answers: Sequence[str]) -> None:
    for answer in answers:
        # Lines are kept, since a description has several; anything else might move the cursor.
        print("\n".join(safe_text(line) for line in answer.split("\n")))


# --- for people ----------------------------------------------------------------------------------


def _print_guest(guest: Inspection, *, applications: bool, services: bool) -> None:
    title = guest.pretty_name or guest.product_name or guest.distro or guest.type
    print(f"{safe_text(guest.root)}: {safe_text(title)}")
    for label, value in _facts(guest):
        if value:
            print(f"  {label:<{LABEL_WIDTH}}{safe_text(value)}")
    for rows, right in _tables(guest, applications=applications, services=services):
        if len(rows) > 1:
            print()
            print_columns([["  " + row[0], *row[1:]] for row in rows], right=right, gap="  ")


def _facts(guest: Inspection) -> Iterator[tuple[str, str]]:
    named = f"{guest.distro} {guest.version}".strip()
    yield "System", ", ".join(filter(None, (guest.type, named, guest.arch)))
    yield "Variant", guest.product_variant
    yield "Build", guest.build_id
    yield "Hostname", guest.hostname
    yield "Machine id", guest.machine_id
    yield "osinfo id", guest.osinfo
    yield "Packages", _packages(guest)
    yield "Init", _init(guest)
    yield "Firmware", " and ".join({"bios": "BIOS", "uefi": "UEFI"}[f] for f in guest.firmware)
    loader = guest.bootloader
    yield "Boot loader", f"{loader.type} ({loader.config})" if loader else ""
    yield "Time zone", guest.timezone
    yield "Locale", guest.locale
    if guest.windows is not None:
        yield "System root", guest.windows.systemroot
        drives = guest.windows.drive_mappings
        yield "Drives", ", ".join(f"{letter}: {device}" for letter, device in drives)
    yield "Snapshots", ", ".join(guest.snapshots)


def _packages(guest: Inspection) -> str:
    if not guest.package_format:
        return ""
    tools = guest.package_format
    if guest.package_management not in ("", guest.package_format):
        tools += f" ({guest.package_management})"
    return f"{len(guest.applications)} {tools}" if guest.applications else tools


def _init(guest: Inspection) -> str:
    if not guest.services:
        return guest.init
    plural = "" if len(guest.services) == 1 else "s"
    return f"{guest.init or 'unknown'}, {len(guest.services)} service{plural} enabled"


Table = tuple[list[list[str]], tuple[int, ...]]


def _tables(guest: Inspection, *, applications: bool, services: bool) -> Iterator[Table]:
    yield _filesystem_table(guest)
    kernels = [[k.version, k.path, "yes" if k.initramfs else "none"] for k in guest.kernels]
    yield [["Kernel", "Image", "Initramfs"], *kernels], ()
    users = [
        [user.name, str(user.uid), user.shell, user.home, ", ".join(_logins(user)) or "none"]
        for user in guest.users
    ]
    yield [["User", "UID", "Shell", "Home", "Can log in by"], *users], (1,)
    if services:
        rows = [[s.name, s.manager, ", ".join(s.wanted_by)] for s in guest.services]
        yield [["Service", "Manager", "Wanted by"], *rows], ()
    if applications:
        rows = [[a.name, _full_version(a), a.arch] for a in guest.applications]
        yield [["Package", "Version", "Arch"], *rows], ()


def _filesystem_table(guest: Inspection) -> Table:
    points: dict[str, list[str]] = {}
    for mountpoint in guest.mountpoints:
        points.setdefault(mountpoint.device, []).append(mountpoint.path)
    for filesystem in guest.filesystems:
        points.setdefault(filesystem.device, [])
    known = {f.device: f for f in guest.filesystems}
    rows = []
    for device, paths in points.items():
        found = known.get(device)
        kind = (found.type if found else "") or "-"
        label = (found.label if found else "") or "-"
        shown = paths or ["swap" if kind == "swap" else "-"]
        rows += [[path, device, kind, label] for path in shown]
    return [["Mounted on", "Device", "Type", "Label"], *rows], ()


def _logins(user: User) -> Iterator[str]:
    words = {"password": "password", "no-password": "no password!", "ssh-key": "ssh key"}
    for method in user.login_methods:
        count = f"s ({user.ssh_keys})" if method == "ssh-key" and user.ssh_keys > 1 else ""
        yield words[method] + count
    if user.password == "unknown":  # noqa: S105 (the word for "no shadow entry")
        yield "?"


def _full_version(application: Application) -> str:
    version = application.version
    if application.epoch:
        version = f"{application.epoch}:{version}"
    return f"{version}-{application.release}" if application.release else version
