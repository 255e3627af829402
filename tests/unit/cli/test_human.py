"""Sizes for people: values that gnulib's human_readable gave for the virt-* tools' options."""

from __future__ import annotations

import pytest

from imgtools.cli.human import human_size

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1075, "1.0K"),
        (1076, "1.1K"),
        (1536, "1.5K"),
        (2482, "2.4K"),
        (10239, "10K"),
        (10700, "10K"),
        (14962, "15K"),
        (269532, "263K"),
        (1048575, "1.0M"),
        (7270091, "6.9M"),
        (1469558577, "1.4G"),
        (400641092740899, "364T"),
        (24420761331216992, "22P"),
    ],
)
def test_as_gnulib_prints_it(size: int, text: str) -> None:
    assert human_size(size) == text


def test_rounding_at_a_power_moves_to_the_next_letter() -> None:
    assert [human_size((1 << n) - 1) for n in (20, 30, 40, 50)] == ["1.0M", "1.0G", "1.0T", "1.0P"]
