"""The ``imgtools`` program: the group of commands, and the one place where errors end."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import threading
from typing import NoReturn

import click

from imgtools import __version__
from imgtools.cli.lazy import LazyGroup, ReaderGoneError
from imgtools.errors import EXIT_FAILED, EXIT_USAGE, ImgtoolsError, UsageError

# Verb -> module; the click command in it is called ``command``.
COMMANDS = {
    "append-line": "imgtools.cli.append_line_cmd",
    "appliance": "imgtools.cli.appliance_cmd",
    "apply": "imgtools.cli.apply_cmd",
    "cat": "imgtools.cli.cat_cmd",
    "chmod": "imgtools.cli.chmod_cmd",
    "chown": "imgtools.cli.chown_cmd",
    "convert": "imgtools.cli.image.convert_cmd",
    "copy-in": "imgtools.cli.copy_in_cmd",
    "copy-out": "imgtools.cli.copy_out_cmd",
    "customize": "imgtools.cli.customize_cmd",
    "df": "imgtools.cli.df_cmd",
    "diff": "imgtools.cli.diff_cmd",
    "doctor": "imgtools.cli.doctor_cmd",
    "edit": "imgtools.cli.edit_cmd",
    "filesystems": "imgtools.cli.filesystems_cmd",
    "get-kernel": "imgtools.cli.get_kernel_cmd",
    "identity": "imgtools.cli.identity_cmd",
    "image": "imgtools.cli.image.group",
    "info": "imgtools.cli.info_cmd",
    "inspect": "imgtools.cli.inspect_cmd",
    "ln": "imgtools.cli.ln_cmd",
    "log": "imgtools.cli.log_cmd",
    "ls": "imgtools.cli.ls_cmd",
    "mkdir": "imgtools.cli.mkdir_cmd",
    "mv": "imgtools.cli.mv_cmd",
    "plugins": "imgtools.cli.plugins_cmd",
    "rebase": "imgtools.cli.image.rebase_cmd",
    "recover": "imgtools.cli.recover_cmd",
    "rm": "imgtools.cli.rm_cmd",
    "search": "imgtools.cli.search_cmd",
    "snapshot": "imgtools.cli.image.snapshot_cmd",
    "sysprep": "imgtools.cli.sysprep_cmd",
    "tail": "imgtools.cli.tail_cmd",
    "tar-in": "imgtools.cli.tar_in_cmd",
    "tar-out": "imgtools.cli.tar_out_cmd",
    "touch": "imgtools.cli.touch_cmd",
    "truncate": "imgtools.cli.truncate_cmd",
    "write": "imgtools.cli.write_cmd",
}

EPILOG = """\b
Examples:
  imgtools inspect -a guest.qcow2
  imgtools df -h -d mydomain
  imgtools cat -a guest.qcow2 /etc/fstab
  imgtools edit -a guest.qcow2 /etc/fstab
  imgtools doctor

\b
Exit status: 0 ok, 1 failed, 2 usage, 3 no guest or OS found, 4 bad or unsupported
image, 5 appliance did not start, 6 operation in the guest failed, 7 missing tool or
binding, 8 refused for safety, 10 findings, 20 warnings under --strict, 128+N signal N.
"""


@click.group(
    cls=LazyGroup,
    modules=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="imgtools")
def cli() -> None:
    """Look inside virtual-machine disk images while the guest is off, and change them safely."""


def main() -> NoReturn:
    """Run the program and exit with a code of the documented scale."""
    code = run(sys.argv[1:])
    if threading.active_count() > 1:
        # A thread that is stuck in libguestfs may call back into an interpreter that has ended.
        atexit._run_exitfuncs()  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run the command line ``argv`` and return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _on_terminate)
    try:
        return _invoke(argv)
    except (BrokenPipeError, ReaderGoneError):
        # Writing the rest would only raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, click.Abort) as error:
        code, hint = 128 + signal.SIGINT, _noted(error)
        _tell("interrupted", code="interrupted", hint=hint, exit_code=code, argv=argv)
        return code
    except SystemExit as error:
        if (hint := _noted(error)) and isinstance(error.code, int):
            _tell("interrupted", code="interrupted", hint=hint, exit_code=error.code, argv=argv)
        raise
    except click.UsageError as error:
        hint = f"try: {error.ctx.command_path} --help" if error.ctx else None
        return _fail(UsageError(error.format_message().rstrip("."), hint=hint), argv)
    except click.ClickException as error:
        return _fail(UsageError(error.format_message()), argv)
    except ImgtoolsError as error:
        return _fail(error, argv)
    except Exception as error:  # noqa: BLE001 (the outermost wrapper: never a traceback)
        if _debugging(argv):
            import traceback

            traceback.print_exc()
        _tell(
            f"internal error: {type(error).__name__}: {error}",
            code="internal",
            hint="please report it with the output of the same command under --debug",
            exit_code=EXIT_FAILED,
            argv=argv,
        )
        return EXIT_FAILED


def _invoke(argv: list[str]) -> int:
    result = cli.main(args=argv, prog_name="imgtools", standalone_mode=False)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _fail(error: ImgtoolsError, argv: list[str]) -> int:
    if _debugging(argv):
        import traceback

        traceback.print_exception(error)
    _tell(error.message, code=error.code, hint=error.hint, exit_code=error.exit_code, argv=argv)
    return error.exit_code


def _tell(
    message: str, *, code: str, exit_code: int, argv: list[str], hint: str | None = None
) -> None:
    from imgtools.cli.render import safe_text

    if "--json" in argv:
        error = {"code": code, "message": message, "hint": hint, "exit": exit_code}
        print(json.dumps({"error": error}), file=sys.stderr)
        return
    line = f"imgtools: {safe_text(message)}"
    if hint:
        separator = "; " if exit_code == EXIT_USAGE else " -- "
        line += separator + safe_text(hint)
    print(line, file=sys.stderr)


def _noted(error: BaseException) -> str | None:
    """What those whose work was interrupted noted on the exception: how it is undone."""
    notes: list[str] = []
    found: BaseException | None = error
    while found is not None:
        notes += getattr(found, "__notes__", [])
        found = found.__cause__
    return "; ".join(notes) or None


def _debugging(argv: list[str]) -> bool:
    return "--debug" in argv or os.environ.get("IMGTOOLS_DEBUG", "") not in ("", "0")


def _on_terminate(number: int, _frame: object) -> NoReturn:
    # Raised, not exited, so that appliances and overlays are cleaned up on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
