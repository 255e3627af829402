"""libguestfs's C functions over the handle of the Python binding, with bytes in and out.

The binding itself takes and returns ``str`` only: a file name, label or kernel message that is
not UTF-8 raises UnicodeDecodeError or, in an event callback, ends the whole process with a
segmentation fault (python/handle.c builds arguments with ``s#`` and uses NULL unchecked).  Guest
bytes may be anything, so every call that can see them goes through ctypes here; the binding
only makes and closes the handle.  Prototypes are those of guestfs.h, whose ABI is stable.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char, c_char_p, c_int32, c_int64, c_size_t, c_uint32
from typing import Any

from imgtools.errors import MissingBindingError

CURE = (
    "apt-get install --no-install-recommends python3-guestfs; in a virtual environment, one made "
    "by Debian's own python3 with --system-site-packages"
)

EVENT_SUBPROCESS_QUIT = 0x0002
EVENT_APPLIANCE = 0x0010
EVENT_LIBRARY = 0x0020
EVENT_WARNING = 0x0200


class CallError(Exception):
    """A libguestfs call failed; ``errno`` is 0 where the daemon gave none."""

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno


class Dirent(Structure):
    """guestfs_dirent."""

    _fields_ = [("ino", c_int64), ("ftyp", c_char), ("name", c_char_p)]


class StatNS(Structure):
    """guestfs_statns."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks"),
            *("atime_sec", "atime_nsec", "mtime_sec", "mtime_nsec", "ctime_sec", "ctime_nsec"),
            *("spare1", "spare2", "spare3", "spare4", "spare5", "spare6"),
        )
    ]


class StatVFSStruct(Structure):
    """guestfs_statvfs."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"),
            *("fsid", "flag", "namemax"),
        )
    ]


class XAttr(Structure):
    """guestfs_xattr."""

    _fields_ = [("name", c_char_p), ("val_len", c_uint32), ("val", ctypes.c_void_p)]


_TEXT = ("name", "display_name")
_TEXT2 = ("version", "release", "arch", "install_path", "trans_path", "publisher", "url")
_TEXT3 = ("source_package", "summary", "description", "spare1", "spare2", "spare3", "spare4")


class Application2(Structure):
    """guestfs_application2."""

    _fields_ = [
        *[(name, c_char_p) for name in _TEXT],
        ("epoch", c_int32),
        *[(name, c_char_p) for name in (*_TEXT2, *_TEXT3)],
    ]


def _list_of(item: type[Structure]) -> type[Structure]:
    fields: Any = [("len", c_uint32), ("val", POINTER(item))]
    return type(f"{item.__name__}List", (Structure,), {"_fields_": fields})


DirentList = _list_of(Dirent)
StatNSList = _list_of(StatNS)
XAttrList = _list_of(XAttr)
Application2List = _list_of(Application2)

_CALLBACK = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_void_p, c_size_t, ctypes.c_void_p, c_size_t),
)


def import_guestfs() -> Any:
    """Return the guestfs module.  Raises MissingBindingError with the line that installs it."""
    try:
        import guestfs
    except ImportError as error:
        raise MissingBindingError(
            f"the Python binding of libguestfs cannot be imported ({error})", hint=CURE
        ) from error
    return guestfs


def open_handle() -> Any:
    """A new handle that has read the environment and prints nothing.

    A variable that libguestfs cannot use (TMPDIR names no folder) is left out, as libguestfs does
    after a complaint of its own; what it costs is found before a launch.
    """
    handle = import_guestfs().GuestFS(python_return_dict=True, environment=False)
    Library(handle).silence()
    with contextlib.suppress(RuntimeError):
        handle.parse_environment()
    return handle


class Library:
    """The C functions on one handle.  Not thread-safe, as the handle is not."""

    def __init__(self, handle: Any) -> None:
        self._c = _load()
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]
        self._pointer = _pointer_of(handle)
        self._callbacks: list[Any] = []
        self._function("set_error_handler", None)
        self._function("last_error", ctypes.c_char_p)
        self._function("last_errno", ctypes.c_int)

    def silence(self) -> None:
        """Print no errors on stderr; libguestfs keeps this for each thread of its own."""
        self._c.guestfs_set_error_handler(self._pointer, None, None)

    def on_event(self, callback: Callable[[int, bytes], None], events: int) -> None:
        """Call ``callback(event, message)`` for the events of the mask, from the calling thread."""

        def receive(*args: Any) -> None:
            event, buffer, length = args[2], args[5], args[6]
            callback(event, ctypes.string_at(buffer, length) if buffer and length else b"")

        wrapped = _CALLBACK(receive)
        function = self._c.guestfs_set_event_callback
        function.restype = ctypes.c_int
        function.argtypes = [
            *(ctypes.c_void_p, _CALLBACK, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p)
        ]
        # libguestfs keeps only the pointer: the wrapper must live as long as the handle.
        self._callbacks.append(wrapped)
        if function(self._pointer, wrapped, events, 0, None) == -1:
            raise self._error()

    def status(self, name: str, *args: Any) -> int:
        """Call a function that returns an int, -1 for an error."""
        result: int = self._function(name, ctypes.c_int)(self._pointer, *args)
        if result == -1:
            raise self._error()
        return result

    def text(self, name: str, *args: Any) -> bytes:
        """Call a function that returns one string."""
        raw = self._function(name, ctypes.c_void_p)(self._pointer, *args)
        if not raw:
            raise self._error()
        try:
            return ctypes.string_at(raw)
        finally:
            self._free(raw)

    def buffer(self, name: str, *args: Any) -> bytes:
        """Call a function that returns bytes and their length."""
        size = c_size_t()
        raw = self._function(name, ctypes.c_void_p)(self._pointer, *args, ctypes.byref(size))
        if not raw:
            raise self._error()
        try:
            return ctypes.string_at(raw, size.value)
        finally:
            self._free(raw)

    def texts(self, name: str, *args: Any) -> list[bytes]:
        """Call a function that returns a list of strings, or a hash table as key, value, …"""
        raw = self._function(name, ctypes.c_void_p)(self._pointer, *args)
        if not raw:
            raise self._error()
        array = ctypes.cast(raw, POINTER(ctypes.c_void_p))
        result = []
        index = 0
        while array[index]:
            result.append(ctypes.string_at(array[index]))
            self._free(array[index])
            index += 1
        self._free(raw)
        return result

    def table(self, name: str, *args: Any) -> dict[bytes, bytes]:
        """Call a function that returns a hash table, in its order."""
        flat = self.texts(name, *args)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def record(
        self, name: str, kind: type[Structure], convert: Callable[[Any], Any], *args: Any
    ) -> Any:
        """Call a function that returns a struct, which ``convert`` copies before it is freed."""
        raw = self._function(name, ctypes.c_void_p)(self._pointer, *args)
        if not raw:
            raise self._error()
        try:
            return convert(ctypes.cast(raw, POINTER(kind)).contents)
        finally:
            self._freer(kind)(raw)

    def _freer(self, kind: type[Structure]) -> Any:
        name = kind.__name__.removesuffix("Struct")
        suffix = "_list" if name.endswith("List") else ""
        freer = getattr(self._c, f"guestfs_free_{name.removesuffix('List').lower()}{suffix}")
        freer.argtypes = [ctypes.c_void_p]
        freer.restype = None
        return freer

    def _function(self, name: str, restype: Any) -> Any:
        function = getattr(self._c, f"guestfs_{name}")
        function.restype = restype
        return function

    def _error(self) -> CallError:
        message = self._c.guestfs_last_error(self._pointer) or b"unknown error"
        errno = self._c.guestfs_last_errno(self._pointer)
        return CallError(message.decode(errors="replace"), errno)


def string_list(items: list[bytes]) -> Any:
    """A NULL-terminated ``char **`` for an argument."""
    return (c_char_p * (len(items) + 1))(*items, None)


def _load() -> Any:
    try:
        return ctypes.CDLL("libguestfs.so.0")
    except OSError as error:
        raise MissingBindingError(f"libguestfs cannot be loaded ({error})", hint=CURE) from error


def _pointer_of(handle: Any) -> ctypes.c_void_p:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_void_p(get_pointer(handle._o, b"guestfs_h"))  # noqa: SLF001 (no public way)


def decode(raw: bytes) -> str:
    """Text of the appliance as ``str``; bytes that are not UTF-8 survive as surrogates."""
    return os.fsdecode(raw)
