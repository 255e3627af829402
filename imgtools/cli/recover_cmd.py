"""``imgtools recover``: finish what a crash interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.options import Output, output_options
from imgtools.cli.render import finish, print_json, safe_text, tell
from imgtools.errors import ImgtoolsError

if TYPE_CHECKING:
    from imgtools.workflow.recovering import Recovered

EPILOG = """\b
Examples:
  imgtools recover guest.qcow2
  imgtools recover --list /var/lib/libvirt/images
  imgtools recover

A commit that was interrupted (power cut, kill -9, full disk) leaves its complete overlay and a
record beside the image.  Until it is finished, reading commands show the new state through the
overlay, and the next writing command finishes it first; this does it now.  What was interrupted
before its commit began is thrown away: the image is as it was.

A run on the image itself that was killed (rebase, snapshot, a guest) may leave counts of clusters
that are too high, which harms nothing; of an image that is named they are set right.
"""

_WORDS = {
    "finish": ("to be finished", "finished: the change is in the image"),
    "discard": ("to be discarded", "discarded: the image is as it was"),
    "clean": ("complete; leftovers to be removed", "complete: leftovers removed"),
    "busy": ("at work now", "at work now"),
}


@click.command(
    "recover",
    epilog=EPILOG,
    short_help="Finish what a crash interrupted",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-l", "--list", "only_list", is_flag=True, help="Show what there is, do nothing.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of an image's folder.")
@output_options()
@click.argument("args", nargs=-1, metavar="[IMAGE|DIR]...")
def command(output: Output, only_list: bool, untrusted: bool, args: tuple[str, ...]) -> int:
    """Finish or discard interrupted changes of images: of IMAGE, or of all in DIR.

    Without a name: those in this folder, and those of block devices.
    """
    from imgtools.workflow.recovering import recover_all

    words = [Path(word) for word in args]
    found = recover_all(words, only_list=only_list, untrusted=untrusted)
    failures: list[ImgtoolsError] = [one.failure for one in found if one.failure is not None]
    if output.json:
        rows = [
            {
                "images": one.interrupted.images if one.interrupted else [one.image],
                "action": _action(one),
                "command": one.interrupted.command if one.interrupted else None,
                "started": one.interrupted.started if one.interrupted else None,
                "done": one.done,
                "error": one.failure.message if one.failure else None,
            }
            for one in found
        ]
        print_json("recover", rows)
    for one in found:
        if one.interrupted is not None and not output.json:
            words_ = _WORDS[one.interrupted.action][0 if not one.done else 1]
            images = safe_text(", ".join(one.interrupted.images))
            print(f"{images}: {one.interrupted.command} of {one.interrupted.started}: {words_}")
        elif one.counts and not output.json and one.failure is None:
            what = (
                "were too high, and are set right" if one.done else "are too high: to be set right"
            )
            print(f"{safe_text(one.image)}: its counts of clusters {what}")
    if not found:
        tell("nothing was interrupted")
    for failure in failures:
        tell(failure.message + (f" -- {failure.hint}" if failure.hint else ""))
    return failures[0].exit_code if failures else finish(output, ())


def _action(one: Recovered) -> str | None:
    if one.interrupted is not None:
        return one.interrupted.action
    return "mend" if one.counts else None
