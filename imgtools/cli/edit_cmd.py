"""``imgtools edit``: files of a guest in an editor, or by an expression."""

from __future__ import annotations

import sys

import click

from imgtools.cli.changing import Change, change_options, guest_path, need
from imgtools.cli.render import safe_text
from imgtools.errors import ImgtoolsError, UsageError

EPILOG = """\b
Examples:
  imgtools edit -d mydomain /etc/fstab
  imgtools edit mydomain /etc/passwd -e 's/^root:.*?:/root::/'
  imgtools edit -a guest.qcow2 /etc/ssh/sshd_config -b .orig -e 's/^#?Port .*/Port 2222/'
  imgtools edit -n --diff -a guest.qcow2 /etc/default/grub -e 's/quiet//'

\b
An expression is run on every line, as in virt-edit; statements are separated by ";":
  s/RE/TEXT/gimsx  y/abc/xyz/  $_ = "TEXT"  $_ .= "TEXT"  d  die "TEXT"
  each with  if /RE/, unless /RE/, if $lineno == 3  behind it (&& || ! and brackets, too),
  or an address as in sed in front of it:  3d  $d  /RE/d  2,5d  /A/,/B/d  /RE/!d

Owner, mode, attributes, labels and line endings stay (an expression that names \\r sees the endings
as they are); a link is followed inside the guest; a file that does not change is not written.
Files of more than 100 MiB, and binary ones, are refused.  $VISUAL or $EDITOR names the editor.
"""


@click.command(
    "edit",
    epilog=EPILOG,
    short_help="Edit files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-e",
    "--edit",
    "--expr",
    "expressions",
    multiple=True,
    metavar="EXPR",
    help="Edit by this expression instead of an editor (repeat for more).",
)
@click.option(
    "-b", "--backup", default="", metavar=".EXT", help="Keep the original as FILE.EXT in the guest."
)
@click.argument("args", nargs=-1, metavar="[GUEST] FILE...")
@change_options
def command(
    change: Change, expressions: tuple[str, ...], backup: str, args: tuple[str, ...]
) -> int:
    """Edit files of a guest, in an editor or by an expression.

    The change is one transaction: made on an overlay, then committed whole or not at all.  The
    guest must be shut off, and cannot be started meanwhile.
    """
    need(args, 1, "which file?", "edit -a IMAGE /etc/fstab")
    if "/" in backup:
        raise UsageError(f"-b {backup}: may not hold a slash", hint="-b .orig")
    from imgtools.guest.editing.expressions import by_expressions
    from imgtools.guest.steps import Edit

    transform = by_expressions(expressions) if expressions else _by_editor
    steps = [Edit(path=guest_path(word), transform=transform, backup=backup) for word in args]
    return change.run(steps, "edit")


def _by_editor(path: bytes, content: bytes) -> bytes:
    from imgtools.guest.editing.lines import restore_endings
    from imgtools.workflow.editor import edit_in_editor

    if not sys.stdin.isatty() and not sys.stdout.isatty():
        import os

        if not os.environ.get("VISUAL") and not os.environ.get("EDITOR"):
            raise UsageError("no terminal for an editor", hint="-e EXPR, or set EDITOR")
    try:
        edited = edit_in_editor(path, content)
    except OSError as error:
        raise ImgtoolsError(f"{safe_text(path)}: {error.strerror}") from error
    return restore_endings(content, edited)
