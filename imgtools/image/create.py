"""Make new images with ``qemu-img create``, which never opens what they rest on.

``-u`` leaves the backing file alone: it has been vetted, its size is given, and a relative name is
right only from the folder in which the image will lie, not from the one in which it is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from imgtools import nodes
from imgtools.errors import ImgtoolsError, SpaceError, ToolError, UsageError
from imgtools.image.options import option_words
from imgtools.image.secret import Secrets, run_with
from imgtools.process import run

TIMEOUT = 24 * 3600.0  # preallocation writes the whole disk
_MEASURED = ("raw", "qcow2", "luks")  # block drivers with bdrv_measure (qemu 7.2)
_MEASURE_OPTIONS = ("cluster_size", "extended_l2", "refcount_bits", "compat", "preallocation")
_STORAGE = ("Permission denied", "Input/output error", "Read-only file system")


def create_image(
    path: Path,
    image_format: str,
    size: int,
    options: Mapping[str, str],
    *,
    backing: tuple[str, str] | None = None,
    secrets: Secrets = Secrets(),  # noqa: B008 (immutable)
) -> None:
    """Make the image ``path``, an absolute name, of ``size`` bytes.

    ``backing`` is the name to be stored, and its format.  Raises ToolError; SpaceError; UsageError
    for what qemu-img does not like in the options.
    """
    argv = ["qemu-img", "create", "-q", "-f", image_format, *secrets.words, *option_words(options)]
    if backing is not None:
        argv += ["-u", "-F", backing[1], "-b", backing[0]]
    try:
        run_with(secrets, [*argv, "--", str(path), str(size)], timeout=TIMEOUT)
    except ToolError as error:
        raise _refined(error, path) from error


def name_data_file(path: Path, made: Path, final: Path, folder: Path, secrets: Secrets) -> None:
    """Make the image ``path``, whose external data file is now ``made``, name it ``final``."""
    node: nodes.Node = {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": nodes.json_name(path, folder / "image")},
        "data-file": {"driver": "file", "filename": nodes.json_name(made, folder / "data")},
    }
    if secrets.words:
        node["encrypt"] = {"format": "luks", "key-secret": "key"}
    words = [*secrets.words, *option_words({"data_file": str(final)}), nodes.spec(node)]
    run(["qemu-img", "amend", "-q", *words], pass_fds=secrets.fds)


def bytes_needed(image_format: str, size: int, options: Mapping[str, str]) -> int:
    """Bytes that a new image takes at once, for its preallocation; 0 without one."""
    mode = options.get("preallocation", "off")
    if mode == "off":
        return 0
    whole = size
    if image_format in _MEASURED:
        words = option_words({name: options[name] for name in _MEASURE_OPTIONS if name in options})
        argv: Sequence[str] = ["qemu-img", "measure", "--output=json", "-O", image_format, *words]
        done = run([*argv, "--size", str(size)], check=False)
        if done.returncode == 0:
            whole = int(json.loads(done.stdout)["fully-allocated"])
    return whole if mode != "metadata" else max(0, whole - size)


def _refined(error: ToolError, path: Path) -> ImgtoolsError:
    line = error.message.replace(str(path), path.name).removeprefix("qemu-img: ")
    line = line.removeprefix(f"{path.name}: ")
    if "No space left" in line or "File too large" in line:
        return SpaceError(f"there is no room for it: {line}", hint="free some space, or make less")
    if any(word in line for word in _STORAGE):
        return ToolError(f"qemu-img create: {line}")
    return UsageError(f"qemu-img create: {line}", hint="see the options with -o help")
