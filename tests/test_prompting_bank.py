from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.prompting.bank import Bank, Remembered


def filled(prompted: list[bool], **sizes: int) -> Bank:
    bank = Bank(**{"prompt_frames": 2, "memory_frames": 7, "max_pointers": 16, **sizes})
    for frame, each in enumerate(prompted):
        tokens, pointer = np.full((4, 2), frame, np.float32), np.full(3, frame, np.float32)
        bank.remember(Remembered(frame=frame, tokens=tokens, pointer=pointer), prompted=each)
    return bank


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 4))
def test_frames_are_chosen_as_from_a_memory_of_everything(
    later: list[bool], prompt_frames: int
) -> None:
    prompted = [True, *later]
    now = len(prompted)
    bank = filled(prompted, prompt_frames=prompt_frames)
    first = [frame for frame in range(now) if prompted[frame]][-prompt_frames:]
    recent = [(now - age, age) for age in range(6, 0, -1) if now - age >= 0]
    wanted = [(frame, 0) for frame in first] + [each for each in recent if each[0] not in first]
    assert [(entry.frame, age) for entry, age in bank.places(now)] == wanted
    ages = [(age, now - age) for age in range(1, 16) if now - age >= 0]
    pointed = [(now - frame, frame) for frame in first]
    pointed += [each for each in ages if each[1] not in first]
    assert [(age, int(pointer[0])) for pointer, age in bank.pointers(now)] == pointed


@given(st.lists(st.booleans(), max_size=5))
def test_no_more_is_held_than_can_be_looked_at(pattern: list[bool]) -> None:
    bank = filled([True, *pattern, *[False] * 20, *pattern])
    assert len(bank.prompted) <= 2
    assert len(bank.tracked) <= 15
    assert sum(entry.tokens is not None for entry in bank.tracked) <= 6
    assert bank.bytes <= 8 * 4 * 2 * 4 + 17 * 3 * 4


def test_what_was_kept_of_a_frame_goes_with_its_tokens() -> None:
    bank = filled([True, False])
    bank.tracked[0].kept = np.zeros((2, 3), np.int64)
    before = bank.bytes
    for frame in range(2, 7):
        one = np.zeros(3, np.float32)
        bank.remember(Remembered(frame=frame, tokens=None, pointer=one), prompted=False)
    assert bank.tracked[0].kept is not None
    bank.remember(Remembered(frame=7, tokens=None, pointer=one), prompted=False)
    assert bank.tracked[0].kept is None
    assert bank.bytes < before
