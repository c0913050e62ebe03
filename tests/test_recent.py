# SPDX-License-Identifier: Apache-2.0
"""A memory that an attacker cannot fill."""

from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.tracer.recent import Recent

THINGS = st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=8)))


def test_the_oldest_goes() -> None:
    kept: Recent[str, int] = Recent(2)
    kept["a"], kept["b"], kept["a"], kept["c"] = 1, 2, 3, 4
    assert [kept.get(key) for key in "abc"] == [3, None, 4]


def test_what_has_no_room_is_not_kept() -> None:
    kept: Recent[str, bytes] = Recent(9, 4, len)
    kept["a"] = b"xx"
    kept["b"] = b"xxxxx"
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, None, 0)
    kept["c"] = b"xxxx"
    assert kept.get("c") == b"xxxx"


@given(THINGS, st.integers(1, 5), st.integers(8, 20))
def test_it_is_never_too_much_and_never_wrong(
    things: list[tuple[int, bytes]], most: int, room: int
) -> None:
    kept: Recent[int, bytes] = Recent(most, room, len)
    told: dict[int, bytes] = {}
    for key, thing in things:
        kept[key] = told[key] = thing
        assert kept.get(key) == thing
        found = {key: there for key in told if (there := kept.get(key)) is not None}
        assert found.items() <= told.items()
        assert len(kept) == len(found) <= most
        assert sum(map(len, found.values())) <= room
