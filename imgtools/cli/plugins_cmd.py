"""``imgtools plugins``: the operations that are installed, and the beginning of a new one."""

from __future__ import annotations

from pathlib import Path

import click

from imgtools.cli.options import Output, output_options
from imgtools.cli.render import print_columns, print_json, tell

EPILOG = """\b
Examples:
  imgtools plugins
  imgtools plugins --json
  imgtools plugins new remove-my-agent
  pip install ./imgtools-remove-my-agent

docs/plugins.md teaches how an operation is written.
"""


@click.group(
    "plugins",
    epilog=EPILOG,
    invoke_without_command=True,
    short_help="Show the installed operations, or begin a new one",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@output_options()
@click.pass_context
def command(ctx: click.Context, output: Output) -> int:
    """Show every operation, the distribution that it comes from, and what could not be loaded."""
    if ctx.invoked_subcommand is not None:
        return 0
    from imgtools.errors import EXIT_FINDINGS
    from imgtools.workflow.sysprep.registry import registry

    found = registry()
    if output.json:
        document = {
            "operations": [
                {"name": one.operation.name, "heading": one.operation.heading, "origin": one.origin}
                for one in found.installed
            ],
            "failures": found.failures,
        }
        print_json("plugins", document)
    else:
        print_columns(
            [(one.operation.name, one.origin, one.operation.heading) for one in found.installed],
            gap="  ",
        )
        for failure in found.failures:
            tell(f"cannot be loaded: {failure.entry} of {failure.origin}: {failure.why}")
    return EXIT_FINDINGS if found.failures else 0


@command.command("new", short_help="Write the skeleton of a distribution with one operation")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    help="Where to write it (default: imgtools-NAME in this folder).",
)
def new_command(name: str, folder: str | None) -> int:
    """Write a distribution with one operation called NAME, ready for pip install."""
    from imgtools.workflow.sysprep.skeleton import write_skeleton

    made = write_skeleton(name, Path(folder or f"imgtools-{name}"))
    for path in made:
        print(path)
    tell(f"next: change {made[-1]}, then pip install {made[0].parent}")
    return 0
