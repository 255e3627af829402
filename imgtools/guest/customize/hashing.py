"""Password hashes by crypt(3) of libxcrypt, the library that guests check them with.

Its manual pages crypt(3), crypt(5) and crypt_gensalt(3) are the source: the prefixes of the
methods, ``count`` 0 for each method's own default cost, ``rbytes`` NULL for salt from the system's
random numbers, and the size of the opaque ``struct crypt_data``.  The module `crypt` of Python is
gone from 3.13 on, hence ctypes.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from typing import Literal, get_args

from imgtools.errors import ImgtoolsError, MissingBindingError, UsageError

Method = Literal["md5", "sha256", "sha512", "yescrypt"]
METHODS: tuple[Method, ...] = get_args(Method)
PREFIXES: dict[Method, bytes] = {
    "md5": b"$1$",
    "sha256": b"$5$",
    "sha512": b"$6$",
    "yescrypt": b"$y$",
}

MAX_PASSWORD = 511
"""Bytes: CRYPT_MAX_PASSPHRASE_SIZE less the NUL."""
_DEFAULT_COST = re.compile(
    rb"\$(1|5|6|y\$j9T)\$(?!rounds=)[./0-9A-Za-z]{1,64}\$[./0-9A-Za-z]{1,128}\Z"
)
_OUTPUT_SIZE = 384
_DATA_SIZE = 32768
# What distributions call it: with and without the old glibc's binary interface.
_NAMES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so.1.1")


def check_password(password: bytes, option: str) -> None:
    """Raise UsageError, without the password, for one that nobody could type or crypt(3) takes."""
    if not password:
        raise UsageError(f"{option}: the password is empty", hint="disabled or locked is meant?")
    if len(password) > MAX_PASSWORD:
        raise UsageError(f"{option}: the password is longer than {MAX_PASSWORD} bytes")
    if any(byte < 0x20 or byte == 0x7F for byte in password):
        raise UsageError(f"{option}: the password holds a control character")


def hash_password(password: bytes, method: Method) -> bytes:
    """A new hash with a random salt.

    Raises MissingBindingError without libxcrypt, ImgtoolsError for a method that it was built
    without.
    """
    library = _library()
    setting = ctypes.create_string_buffer(_OUTPUT_SIZE)
    made = library.crypt_gensalt_rn(PREFIXES[method], 0, None, 0, setting, _OUTPUT_SIZE)
    hashed = _crypt(password, setting.value) if made else None
    if hashed is None or not hashed.startswith(PREFIXES[method]):
        raise ImgtoolsError(
            f"this host's libcrypt makes no {method} hashes", hint="--password-crypto sha512"
        )
    return hashed


def verifies(password: bytes, hashed: bytes) -> bool:
    """Whether ``hashed`` is a hash of this password, as we make them.

    A guest's hash may ask for hours or gigabytes: one of other than the default cost is never
    tried.
    """
    return _DEFAULT_COST.match(hashed) is not None and _crypt(password, hashed) == hashed


def _crypt(password: bytes, setting: bytes) -> bytes | None:
    data = ctypes.create_string_buffer(_DATA_SIZE)
    answer: bytes | None = _library().crypt_rn(password, setting, data, _DATA_SIZE)
    ctypes.memset(data, 0, _DATA_SIZE)
    return answer


@cache
def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
            salt, crypt = library.crypt_gensalt_rn, library.crypt_rn
        except (OSError, AttributeError):  # not there, or glibc's own, which knows no yescrypt
            continue
        salt.restype = ctypes.c_char_p
        salt.argtypes = [
            ctypes.c_char_p,
            ctypes.c_ulong,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
        ]
        crypt.restype = ctypes.c_char_p
        crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
        return library
    raise MissingBindingError(
        "libxcrypt is not installed (libcrypt.so.1), which hashes passwords",
        hint="apt-get install libcrypt1, or dnf install libxcrypt",
    )
