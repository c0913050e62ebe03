# SPDX-License-Identifier: Apache-2.0
"""Frames, through a stream that cuts them anywhere."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bpfsnoop.tracer.delivery.frames import (
    LINE,
    PAYLOAD_MAX,
    PROGRESS,
    SETTINGS,
    Frame,
    FrameReader,
)

FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(SETTINGS, PROGRESS),
        st.binary(max_size=300),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 7),
        st.integers(0, 2**64 - 1),
    ),
    max_size=20,
)


@given(FRAMES, st.lists(st.integers(1, 400)))
@example([Frame(LINE, b"x" * 100, 1)], [1] * 200)
def test_whatever_the_pieces_the_frames_are_the_same(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(map(bytes, frames))
    reader = FrameReader()
    got: list[Frame] = []
    for size in cuts:
        got += reader.feed(stream[:size])
        stream = stream[size:]
    got += reader.feed(stream)
    assert got == frames


@given(st.lists(st.binary(max_size=200)))
def test_anything_else_is_refused_or_waited_for(pieces: list[bytes]) -> None:
    reader = FrameReader()
    try:
        frames = [frame for piece in pieces for frame in reader.feed(piece)]
    except ValueError:
        return
    stream = b"".join(pieces)
    again = b"".join(map(bytes, frames))
    assert len(again) <= len(stream)
    assert all(SETTINGS <= frame.kind <= PROGRESS for frame in frames)


def test_a_length_that_nobody_has_memory_for_is_refused_at_once() -> None:
    header = bytes(Frame(LINE))
    with pytest.raises(ValueError, match="not a frame"):
        FrameReader().feed((PAYLOAD_MAX + 1).to_bytes(4, "little") + header[4:])
