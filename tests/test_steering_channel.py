from __future__ import annotations

import numpy as np
import pytest

from edgeperc.steering import channel as module
from edgeperc.steering.channel import Channel, pair


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    ours, theirs = pair()
    return ours, Channel(theirs)


def test_messages_of_any_size_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    sent = [np.arange(size) for size in (0, 3, 300_000, 5)]
    for message in sent:
        ours.send(message)
    received = []
    while len(received) < len(sent):
        received += theirs.receive()
        ours.flush()
    for before, after in zip(sent, received, strict=True):
        np.testing.assert_array_equal(before, after)
    assert not ours.waiting


def test_nothing_to_read_is_no_message(ends: tuple[Channel, Channel]) -> None:
    assert ends[0].receive() == []


def test_a_reader_that_sleeps_costs_messages_and_never_time(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FULL_BYTES", 1 << 20)
    ours, theirs = ends
    for number in range(100):
        ours.send((number, bytes(100_000)))
    assert ours.dropped > 50
    ours.send("important", must_arrive=True)
    numbers = []
    while ours.waiting or numbers[-1:] != ["important"]:
        numbers += [m if isinstance(m, str) else m[0] for m in theirs.receive()]
        ours.flush()
    assert numbers[:-1] == list(range(100 - ours.dropped))


def test_the_last_words_of_a_process_are_heard_before_its_end(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    theirs.send("last words")
    theirs.close()
    assert ours.receive() == ["last words"]
    with pytest.raises(EOFError):
        ours.receive()
    with pytest.raises(BrokenPipeError):
        ours.send("hello")
