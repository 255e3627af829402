"""``imgtools apply``: many changes from a file, in one transaction and one launch."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imgtools.cli.changing import Change, change_options
from imgtools.errors import UsageError

EPILOG = """\b
Examples:
  imgtools apply -a guest.qcow2 changes.txt
  imgtools apply -n --diff -d mydomain changes.yaml

\b
One step a line: a writing command as you would type it, without the guest:
  write /etc/hostname --content web01
  edit /etc/ssh/sshd_config -e 's/^#?Port .*/Port 2222/'
  rm -f /etc/udev/rules.d/70-persistent-net.rules

\b
Or YAML, by the file name (.yaml, .yml) or --yaml: a list of {command: arguments}:
  - write: {path: /etc/hostname, content: web01}
  - chmod: ["0600", /etc/ssh/ssh_host_rsa_key]
  - rm: {paths: [/a, /b], force: true}
"""


@click.command(
    "apply",
    epilog=EPILOG,
    short_help="Run many changes of a guest as one",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--yaml", "is_yaml", is_flag=True, help="FILE is YAML, whatever its name.")
@click.argument("args", nargs=-1, metavar="[GUEST] FILE|-")
@change_options
def command(change: Change, is_yaml: bool, args: tuple[str, ...]) -> int:
    """Run the steps of FILE (or of stdin for -) on a guest: all of them, or none.

    Known steps: append-line, chmod, chown, copy-in, edit, ln, mkdir, mv, rm, tar-in, touch,
    truncate, write.
    """
    if len(args) != 1:
        raise UsageError("which file of steps?", hint="imgtools apply -a IMAGE FILE")
    from imgtools.cli.steps_file import read_lines, read_yaml, steps_of

    name = args[0]
    if name == "-":
        text = sys.stdin.buffer.read(_MAX_FILE + 1)
    else:
        try:
            with Path(name).open("rb") as stream:
                text = stream.read(_MAX_FILE + 1)
        except OSError as error:
            raise UsageError(f"{name}: {error.strerror}", hint="- means stdin") from None
    if len(text) > _MAX_FILE:
        raise UsageError(f"{name}: larger than {_MAX_FILE >> 20} MiB")
    shown = "stdin" if name == "-" else name
    is_yaml = is_yaml or Path(name).suffix in (".yaml", ".yml")
    lines = (read_yaml if is_yaml else read_lines)(text, shown)
    return change.run(steps_of(lines), "apply")


_MAX_FILE = 16 << 20
