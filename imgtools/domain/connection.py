"""Open a libvirt connection, and say in one line what stops us.

libvirt prints every error on stderr by itself unless a handler is registered; ours swallows
them, since each also arrives as an exception.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from imgtools.errors import ImgtoolsError, LibvirtError, MissingBindingError

_LOCAL_HOSTS = (None, "localhost", "127.0.0.1", "::1")


def binding() -> Any:
    """The libvirt module, silenced.  Raises MissingBindingError."""
    try:
        import libvirt
    except ImportError:
        raise MissingBindingError(
            "the libvirt binding for Python is not installed",
            hint="apt-get install python3-libvirt",
        ) from None
    libvirt.registerErrorHandler(_ignore, None)
    return libvirt


def _ignore(_context: object, _error: object) -> None:
    pass


@contextlib.contextmanager
def open_connection(uri: str = "") -> Iterator[Any]:
    """Open ``uri`` (empty: libvirt's default) read-only and close it at the end.

    libvirt's errors inside the block become LibvirtError as well.
    """
    libvirt = binding()
    with translated(uri):
        connection = libvirt.openReadOnly(uri or None)
    try:
        with translated(uri):
            yield connection
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


@contextlib.contextmanager
def translated(uri: str = "") -> Iterator[None]:
    """Turn libvirt's exception into ours."""
    libvirt = binding()
    try:
        yield
    except libvirt.libvirtError as error:
        raise _translate(error, uri) from error


def _translate(error: Any, uri: str) -> ImgtoolsError:
    libvirt = binding()
    where = uri or "libvirt"
    text = " ".join((error.get_error_message() or "unknown error").split())
    hint = None
    if "ermission denied" in text or error.get_error_code() == libvirt.VIR_ERR_AUTH_FAILED:
        hint = "join the group libvirt: adduser $USER libvirt (and log in again)"
    elif "No such file or directory" in text or "Connection refused" in text:
        hint = "is the daemon running?  systemctl start libvirtd"
    elif error.get_error_code() in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_ARG):
        hint = "a libvirt URI looks like qemu:///system (see: virsh uri)"
    return LibvirtError(f"{where}: {text}", hint=hint)


def remote_host(connection: Any) -> str | None:
    """The host whose libvirt ``connection`` talks to, None when it is this machine."""
    return host_of(connection.getURI())


def host_of(uri: str) -> str | None:
    """The remote host a libvirt URI names, None for a local one.

    Format: https://libvirt.org/uri.html (``driver[+transport]://[user@][host][:port]/path``);
    a tunnel to ``localhost`` still ends where our paths are valid.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return None
    return None if host in _LOCAL_HOSTS else host


def check(uri: str = "") -> str:
    """Connect and say to what: ``qemu:///system, libvirt 9.0.0, 2 domains``.

    Raises MissingBindingError and LibvirtError.
    """
    with open_connection(uri) as connection:
        number = connection.getLibVersion()
        version = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
        count = len(connection.listAllDomains())
        return f"{connection.getURI()}, libvirt {version}, {count} domain{'s' * (count != 1)}"
