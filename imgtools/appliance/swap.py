"""Look into swap spaces, and clear them: devices, and files of mounted filesystems."""

from __future__ import annotations

import shlex

from imgtools.appliance.launch import Appliance
from imgtools.errors import GuestOperationError
from imgtools.swap import PAGES

TIMEOUT = 24 * 3600.0

# The page is where the signature says it is; ``size`` are all bytes.
_LOOK = """
target={target}
size=$(stat -c %s "$target")
[ ! -b "$target" ] || size=$(blockdev --getsize64 "$target")
for page in {pages} 0; do
  [ $page -gt 0 ] || {{ echo "is no swap space"; exit 0; }}
  case $(dd if="$target" bs=1 skip=$((page - 10)) count=10 2>/dev/null | tr -d '\\0') in
    SWAPSPACE2|SWAP-SPACE) break;;
  esac
done
clear() {{ cmp -s -i $page:0 -n $((size - page)) "$target" /dev/zero; }}
"""
# A device forgets its blocks, the image with it.  A file's would only be marked as unwritten, with
# what they hold, so zeros are written; only where there is something, as an image grows by them.
_CLEAR = """
[ ! -b "$target" ] || blkdiscard -f -z -o $page "$target" 2>/dev/null
at=$page
while [ $at -lt $size ]; do
  count=$((8388608 - at % 8388608))
  [ $((at + count)) -le $size ] || count=$((size - at))
  cmp -s -i $at:0 -n $count "$target" /dev/zero ||
    dd if=/dev/zero of="$target" bs=1M oflag=seek_bytes iflag=count_bytes seek=$at count=$count \\
      conv=notrunc 2>/dev/null || break
  at=$((at + count))
done
sync
"""


def is_clear(appliance: Appliance, path: str) -> bool:
    """True if a swap space has no content; ``path`` is the appliance's."""
    return _ask(appliance, path, "") in (b"clear", b"is no swap space")


def clear(appliance: Appliance, path: str, shown: str) -> None:
    """Write zeros over the content of a swap space; its header stays, and a file's blocks.

    Raises GuestOperationError, with the name ``shown``.
    """
    answer = _ask(appliance, path, _CLEAR)
    if answer != b"clear":
        why = answer.decode(errors="replace")
        raise GuestOperationError(f"{shown}: the swap space cannot be cleared: {why}")


def _ask(appliance: Appliance, path: str, act: str) -> bytes:
    pages = " ".join(str(page) for page in PAGES)
    look = _LOOK.format(target=shlex.quote(path), pages=pages)
    script = f"{look}{act}if clear; then echo clear; else echo has content; fi; exit 0"
    return appliance.shell(script, what="a look at swap space", timeout=TIMEOUT).strip()
