"""Output of two runs reaches its reader once, and only whole."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import EnginesDisagreeError, OutputError
from imgtools.workflow.resumable import ResumableWriter

pytestmark = pytest.mark.unit


def run(writer: ResumableWriter, data: bytes, step: int, stop: int | None = None) -> None:
    writer.restart()
    for start in range(0, len(data), step):
        if stop is not None and start >= stop:
            return
        writer.write(data[start : start + step])


@given(
    data=st.binary(min_size=1, max_size=2000),
    hold=st.integers(0, 1000),
    stop=st.integers(0, 2000),
    steps=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_a_second_run_neither_repeats_nor_loses_a_byte(
    data: bytes, hold: int, stop: int, steps: tuple[int, int]
) -> None:
    sink = io.BytesIO()
    writer = ResumableWriter(sink, hold_back=hold)
    run(writer, data, steps[0], stop)
    assert data.startswith(sink.getvalue())
    run(writer, data, steps[1])
    writer.finish()
    assert sink.getvalue() == data


def test_nothing_comes_out_before_it_is_certain() -> None:
    sink = io.BytesIO()
    writer = ResumableWriter(sink, hold_back=100)
    run(writer, b"wrong" * 10, 5)
    assert sink.getvalue() == b""
    run(writer, b"right", 5)
    writer.finish()
    assert sink.getvalue() == b"right"


@pytest.mark.parametrize("second", [b"b" * 50, b"a" * 49 + b"b", b"a" * 20, b""])
def test_another_answer_after_bytes_went_out_is_an_error(second: bytes) -> None:
    sink = io.BytesIO()
    writer = ResumableWriter(sink, hold_back=0)
    run(writer, b"a" * 50, 50)
    assert sink.getvalue() == b"a" * 50
    with pytest.raises(EnginesDisagreeError):  # noqa: PT012 (either may notice)
        run(writer, second, 7)
        writer.finish()
    assert sink.getvalue() == b"a" * 50


def test_a_full_disk_is_one_error() -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 (the real thing)
        writer = ResumableWriter(full)  # type: ignore[arg-type]
        run(writer, b"x" * 10, 10)
        with pytest.raises(OutputError, match="No space left"):
            writer.finish()


def test_a_reader_that_left_stays_a_broken_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as pipe:  # noqa: PTH123
        writer = ResumableWriter(pipe)  # type: ignore[arg-type]
        run(writer, b"x", 1)
        with pytest.raises(BrokenPipeError):
            writer.finish()
