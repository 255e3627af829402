"""Sizes for people, digit for digit as the virt-* tools print them.

They use gnulib's ``human_readable`` (lib/human.c) with the options round-to-nearest, autoscale,
base-1024 and SI; its integer arithmetic is followed here step by step, since rounding halves to
even at each step gives other digits than one division would.
"""

from __future__ import annotations

_LETTERS = "0KMGTPEZY"


def human_size(size: int) -> str:
    """``size`` bytes as ``512``, ``1.5K``, ``12M`` …"""
    if size < 0:
        return f"-{human_size(-size)}"
    amount, tenths, rounding, exponent = _scaled(size)
    fraction = ""
    if exponent and amount < 10:
        if rounding + (tenths & 1) > 2:
            tenths, rounding = tenths + 1, 0
            if tenths == 10:
                amount, tenths = amount + 1, 0
        if amount < 10:
            fraction = f".{tenths}"
            tenths = rounding = 0
    if tenths + (rounding + (amount & 1) > 0) > 5:
        amount += 1
        if amount == 1024 and exponent < len(_LETTERS) - 1:
            amount, exponent, fraction = 1, exponent + 1, ".0"
    return f"{amount}{fraction}{_LETTERS[exponent] if exponent else ''}"


def _scaled(amount: int) -> tuple[int, int, int, int]:
    """(amount, tenths, rounding, exponent of 1024); rounding counts in quarters of a tenth.

    rounding is 0 for exact, 1 below half a tenth, 2 for exactly half, 3 above.
    """
    tenths = rounding = exponent = 0
    while amount >= 1024 and exponent < len(_LETTERS) - 1:
        r10 = (amount % 1024) * 10 + tenths
        r2 = (r10 % 1024) * 2 + (rounding >> 1)
        amount //= 1024
        tenths = r10 // 1024
        rounding = int(r2 + rounding != 0) if r2 < 1024 else 2 + int(r2 + rounding > 1024)
        exponent += 1
    return amount, tenths, rounding, exponent
