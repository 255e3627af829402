"""The options of image formats, as the installed qemu-img knows them.

``qemu-img create -f FORMAT -o help`` (``amend`` likewise) lists them with their types, so that a
mistyped name or value is one clear line before anything is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from imgtools.errors import UsageError
from imgtools.process import run

_LINE = re.compile(r"^  ([\w.-]+)=<(\w+)[^>]*>\s*(?:- (.*))?$", re.MULTILINE)
_BOOLEANS = {"on": "on", "off": "off", "yes": "on", "no": "off", "true": "on", "false": "off"}
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[bkmgtpe]?", re.ASCII | re.IGNORECASE)


class Option(NamedTuple):
    """An option of a format; ``type`` is qemu's: ``str``, ``bool``, ``num`` or ``size``."""

    name: str
    type: str
    text: str


@cache
def options_of(image_format: str, verb: str = "create") -> Mapping[str, Option]:
    """The options that ``qemu-img VERB`` takes for a format; empty for one it cannot make.

    Raises MissingToolError.
    """
    argv = ["qemu-img", verb, "-f", image_format, "-o", "help"]
    if verb == "create":
        argv.append("file:name")  # which adds the options of files, and is not looked at
    said = run(argv, check=False).stdout.decode(errors="replace")
    return {found[1]: Option(found[1], found[2], found[3] or "") for found in _LINE.finditer(said)}


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """``OPT=VAL,OPT=VAL`` (a comma within a value is doubled).  Raises UsageError."""
    result: dict[str, str] = {}
    for word in words:
        for part in word.replace(",,", "\0").split(","):
            name, equals, value = part.replace("\0", ",").partition("=")
            if not name or not equals:
                raise UsageError(f"-o {word}: expected NAME=VALUE,...", hint="-o help lists them")
            if name in result:
                raise UsageError(f"-o {name}: is given twice")
            result[name] = value
    return result


def check_options(
    options: Mapping[str, str], image_format: str, verb: str = "create"
) -> dict[str, str]:
    """``options`` with their values in qemu's form.  Raises UsageError for what it would refuse."""
    known = options_of(image_format, verb)
    return {name: _checked(name, value, image_format, known) for name, value in options.items()}


def _checked(name: str, value: str, image_format: str, known: Mapping[str, Option]) -> str:
    option = known.get(name)
    if option is None:
        import difflib

        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        question = f": did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"-o {name}: the format {image_format} has no such option{question}",
            hint=f"known: {', '.join(known) or 'none'}",
        )
    if option.type == "bool" and value.lower() not in _BOOLEANS:
        raise UsageError(f"-o {name}={value}: must be on or off")
    if option.type == "num" and not (value.isdigit() and value.isascii()):
        raise UsageError(f"-o {name}={value}: must be a number")
    if option.type == "size" and not _SIZE.fullmatch(value):
        raise UsageError(f"-o {name}={value}: must be a size, as 65536, 64k or 2M")
    return _BOOLEANS[value.lower()] if option.type == "bool" else value


def option_words(options: Mapping[str, str]) -> list[str]:
    """The words of a qemu-img command for ``options``; commas doubled, as QemuOpts wants them."""
    if not options:
        return []
    return ["-o", ",".join(f"{name}={value.replace(',', ',,')}" for name, value in options.items())]
