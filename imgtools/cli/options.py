"""Options that commands share, with the letters and words of the virt-* tools.

`disk_options` gives a command ``-a -d -c --format --blocksize --key --keys-from-stdin --engine
--untrusted`` and hands it one `DiskArguments`; `output_options` gives ``--json -v -q --strict
--debug``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from imgtools.config import ENGINES, load
from imgtools.errors import UsageError
from imgtools.model.disks import KNOWN_FORMATS, DiskRequest, KeySpec
from imgtools.workflow.selection import DiskArguments

__all__ = [
    "ChecksumCommand",
    "DiskArguments",
    "OrderedOption",
    "Output",
    "disk_options",
    "guests_of",
    "make_request",
    "mount_option",
    "output_options",
    "second_disk_options",
    "with_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_META = "imgtools.disks"
URI_SCHEMES = ("file", "nbd", "nbd+unix", "ssh", "http", "https", "ftp", "ftps", "tftp")
MAX_KEY_FILE = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How to talk: ``json`` instead of a table; ``verbose`` says which engine and why."""

    json: bool = False
    verbose: bool = False
    quiet: bool = False
    strict: bool = False


class OrderedOption(click.Option):
    """An option that remembers where it stood among its kind, those of one ``meta_key``.

    ``--format`` applies to the ``-a`` that follow it, and click alone does not keep the order
    between two options.
    """

    meta_key = _META

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        name = self.opts[-1]
        # No public hook; a test guards it.
        known = parser._long_opt if name.startswith("--") else parser._short_opt  # noqa: SLF001
        parsed = known[name]
        original = parsed.process

        def process(value: Any, state: Any) -> None:
            ctx.meta.setdefault(self.meta_key, []).append((self.name, value))
            original(value, state)

        parsed.process = process


class ChecksumCommand(click.Command):
    """``--checksum`` takes its value only after ``=``, as in virt-ls; click always takes a word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        bare = ("--checksum", "--checksums")
        end = args.index("--") if "--" in args else len(args)
        args = [f"{word}=md5" if word in bare else word for word in args[:end]] + args[end:]
        return super().parse_args(ctx, args)


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Give a command all of ``options``, which its help shows in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def disk_options(*, positional: Literal["first", "all", "none"] = "first") -> Callable[[F], F]:
    """Give the command the options that name disks; it receives ``disks: DiskArguments``.

    Unless ``none``, the command's own argument list must be called ``args``.  When neither -a
    nor -d is given its ``first`` word (or ``all`` of them, together one guest) name disk
    images or domains, as the virt-* tools allow; the words left over stay in ``args``.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            raw = {name: kwargs.pop(name) for name in _RAW}
            words = list(kwargs.get("args", ())) if positional != "none" else []
            ctx = click.get_current_context()
            ordered = ctx.meta.get(_META, [])
            parsed = _collect(raw, ordered, words, every=positional == "all")
            if positional != "none":
                kwargs["args"] = tuple(words)
            return function(*args, disks=parsed, **kwargs)

        return cast("F", with_options(_OPTIONS)(wrapper))

    return decorate


_RAW = (
    "add",
    "domain",
    "connect",
    "format",
    "blocksize",
    "key",
    "keys_from_stdin",
    "engine",
    "untrusted",
    "no_instant",
)

_OPTIONS = [
    click.option(
        "-a",
        "--add",
        cls=OrderedOption,
        multiple=True,
        metavar="FILE|URI",
        help="Add a disk image (repeat for a guest of several disks).",
    ),
    click.option(
        "-d",
        "--domain",
        multiple=True,
        metavar="NAME|UUID",
        help="Add the disks of a libvirt domain.",
    ),
    click.option(
        "-c",
        "--connect",
        metavar="URI",
        help="libvirt connection for -d.  [env: IMGTOOLS_CONNECT]",
    ),
    click.option(
        "--format",
        cls=OrderedOption,
        multiple=True,
        metavar="raw|qcow2|...|auto",
        help="Format of the -a that follow; auto goes back to reading the header.",
    ),
    click.option(
        "--blocksize",
        cls=OrderedOption,
        multiple=True,
        type=click.Choice(["512", "4096"]),
        help="Sector size of the -a that follow.",
    ),
    click.option(
        "--key",
        multiple=True,
        metavar="ID:key:TEXT|ID:file:NAME",
        help="Key of an encrypted volume; ID is its device, UUID or 'all'.  Prefer file:, "
        "since other users see the command line.",
    ),
    click.option(
        "--keys-from-stdin",
        is_flag=True,
        help="Read passphrases from stdin, one a line, for any encrypted volume.",
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        help="How to read: in this process, through the libguestfs appliance, or whichever "
        "is certain to be right (auto, the default).  [env: IMGTOOLS_ENGINE]",
    ),
    click.option(
        "--untrusted",
        is_flag=True,
        help="The image comes from a stranger: follow no reference out of its own folder.",
    ),
    click.option(
        "--no-instant",
        is_flag=True,
        help="Boot the appliance, never resume a saved one.  [env: IMGTOOLS_INSTANT=0]",
    ),
]


def second_disk_options(function: F) -> F:
    """Give a command with `disk_options` virt-diff's ``-A`` and ``-D``; it receives ``second``.

    When neither is given the next word of ``args`` names the second guest; ``second`` is empty
    if there is none.  Everything else (keys, engine, libvirt connection) is the first guest's.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, disks: DiskArguments, **kwargs: Any) -> Any:
        kwargs.pop("add_second")
        domains = list(kwargs.pop("domain_second"))
        guessed = not domains
        ordered = click.get_current_context().meta.get(_META, [])
        requests = _in_order(ordered, "add_second")
        if requests and domains:
            raise UsageError("-A and -D cannot be mixed", hint="name a domain or its images")
        if not requests and not domains and kwargs["args"]:
            word, *rest = kwargs["args"]
            requests, domains = _positional([word], ordered, "add_second")
            kwargs["args"] = tuple(rest)
        second = replace(disks, disks=tuple(requests), domains=tuple(domains), guessed=guessed)
        return function(*args, disks=disks, second=second, **kwargs)

    decorated: Any = wrapper
    for option in (
        click.option(
            "-D",
            "domain_second",
            multiple=True,
            metavar="NAME|UUID",
            help="The second guest: the disks of a libvirt domain.",
        ),
        click.option(
            "-A",
            "add_second",
            cls=OrderedOption,
            multiple=True,
            metavar="FILE|URI",
            help="The second guest: a disk image (repeat for several disks).",
        ),
    ):
        decorated = option(decorated)
    return cast("F", decorated)


mount_option = click.option(
    "-m",
    "--mount",
    "mounts",
    multiple=True,
    metavar="DEV[:MNT[:OPTS[:TYPE]]]",
    help="Do not look for an operating system: mount DEV on MNT (default /).",
)


def output_options(*, json: bool = True) -> Callable[[F], F]:
    """Give the command ``--json -v -q --strict --debug``; it receives ``output: Output``."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            kwargs.pop("debug")
            output = Output(
                json=kwargs.pop("json", False),
                verbose=kwargs.pop("verbose"),
                quiet=kwargs.pop("quiet"),
                strict=kwargs.pop("strict"),
            )
            return function(*args, output=output, **kwargs)

        options = [
            click.option(
                "-v", "--verbose", is_flag=True, help="Say which engine was taken, and why."
            ),
            click.option("-q", "--quiet", is_flag=True, help="No warnings on stderr."),
            click.option("--strict", is_flag=True, help="Exit 20 if there were warnings."),
            click.option("--debug", is_flag=True, help="Show a traceback on errors."),
        ]
        if json:
            options.insert(0, click.option("--json", is_flag=True, help="One JSON document."))
        return cast("F", with_options(options)(wrapper))

    return decorate


def _collect(
    raw: dict[str, Any], ordered: list[tuple[str, str]], words: list[str], *, every: bool
) -> DiskArguments:
    config = load()
    if raw["no_instant"]:
        config = replace(config, instant=False)
    disks = _in_order(ordered)
    domains = list(raw["domain"])
    named_here = bool(domains)
    if disks and domains:
        raise UsageError("-a and -d cannot be mixed", hint="name a domain or its images")
    if not disks and not domains:
        named = len(words) if every else min(1, len(words))
        disks, domains = _positional(words[:named], ordered)
        del words[:named]
    return DiskArguments(
        disks=tuple(disks),
        domains=tuple(domains),
        guessed=bool(domains) and not named_here,
        connect=raw["connect"] or config.connect,
        keys=_keys(raw["key"], from_stdin=raw["keys_from_stdin"]),
        engine=raw["engine"] or config.engine,
        untrusted=raw["untrusted"],
        config=config,
    )


def guests_of(disks: DiskArguments, words: Sequence[str]) -> list[DiskArguments]:
    """The guests of a command that reads many: that of -a, or the domains, or one for each word.

    For a command whose `disk_options` are positional "none".
    """
    if not disks.empty:
        if words:
            raise UsageError(f"what is {words[0]}?", hint="name guests by -a, by -d, or as words")
        return [replace(disks, domains=(name,)) for name in disks.domains] or [disks]
    ordered = click.get_current_context().meta.get(_META, [])
    requests, domains = _positional(list(words), ordered)
    if not requests and not domains:
        raise UsageError("which guests?", hint="name images, or -d DOMAIN")
    return [replace(disks, disks=(request,)) for request in requests] or [
        replace(disks, domains=(name,), guessed=True) for name in domains
    ]


def _in_order(ordered: list[tuple[str, str]], wanted: str = "add") -> list[DiskRequest]:
    """The disks of -a (or of what ``wanted`` names), each with the --format before it."""
    image_format: str | None = None
    block_size: Literal[512, 4096] = 512
    disks = []
    for name, value in ordered:
        if name == "format":
            image_format = _checked_format(value)
        elif name == "blocksize":
            block_size = 4096 if value == "4096" else 512
        elif name == wanted:
            disks.append(make_request(value, image_format, block_size))
    if image_format is not None and disks and ordered[-1][0] == "format":
        raise UsageError(f"--format {image_format} stands after the last -a and applies to none")
    return disks


def _checked_format(value: str) -> str | None:
    value = {"vhd": "vpc"}.get(value, value)
    if value == "auto":
        return None
    if value not in KNOWN_FORMATS:
        raise UsageError(
            f"--format {value}: unknown image format", hint=f"known: {', '.join(KNOWN_FORMATS)}"
        )
    return value


def _positional(
    words: list[str], ordered: list[tuple[str, str]], wanted: str = "add"
) -> tuple[list[DiskRequest], list[str]]:
    """A word names an image if it looks like a file or URI, else a domain."""
    images = [word for word in words if "/" in word or Path(word).exists()]
    if images and len(images) < len(words):
        raise UsageError("images and domains cannot be mixed", hint="use -a or -d")
    if images:
        return _in_order([*ordered, *((wanted, word) for word in images)], wanted), []
    return [], list(words)


def make_request(
    word: str, image_format: str | None = None, block_size: Literal[512, 4096] = 512
) -> DiskRequest:
    """Make a DiskRequest from the argument of ``-a``.  Raises UsageError for a bad URI."""
    scheme, separator, rest = word.partition("://")
    # A scheme is letters; anything else in front of "://" is an odd file name.
    if not separator or not scheme.replace("+", "").isalpha() or Path(word).exists():
        if not word:
            raise UsageError("-a '': the name of the image is empty")
        return DiskRequest(path=Path(word), format=image_format, block_size=block_size)
    if scheme not in URI_SCHEMES:
        raise UsageError(f"{word}: unknown kind of URI", hint=f"known: {', '.join(URI_SCHEMES)}")
    if scheme == "file":
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(word)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(f"{word}: a file URI has three slashes", hint=f"file:///{rest}")
        path = Path(unquote(parts.path))
        return DiskRequest(path=path, format=image_format, block_size=block_size)
    return DiskRequest(uri=word, format=image_format, block_size=block_size)


def _keys(specs: tuple[str, ...], *, from_stdin: bool) -> tuple[KeySpec, ...]:
    keys = [_key(spec) for spec in specs]
    if from_stdin:
        lines = sys.stdin.buffer.read(MAX_KEY_FILE).split(b"\n")
        keys += [KeySpec(id="all", secret=line.removesuffix(b"\r")) for line in lines if line]
    return tuple(keys)


def _key(spec: str) -> KeySpec:
    # Never echo the specification: it may hold the passphrase.
    identity, kind, value = _split_key(spec)
    if kind == "key":
        return KeySpec(id=identity, secret=value.encode(errors="surrogateescape"))
    if kind == "file":
        try:
            with Path(value).open("rb") as stream:
                secret = stream.read(MAX_KEY_FILE)
        except OSError as error:
            raise UsageError(f"--key: cannot read {value}: {error.strerror}") from None
        # cryptsetup's and the virt tools' rule for a passphrase file: one trailing newline goes.
        return KeySpec(id=identity, secret=secret.removesuffix(b"\n"))
    raise UsageError(
        f"--key {identity}:{kind}:...: only key and file are supported",
        hint="--key ID:file:NAME",
    )


def _split_key(spec: str) -> tuple[str, str, str]:
    parts = spec.split(":", 2)
    if len(parts) != 3 or not parts[0]:
        raise UsageError("--key: expected ID:key:TEXT or ID:file:NAME", hint="see --help")
    return parts[0], parts[1], parts[2]
