from __future__ import annotations

import cv2

from edgeperc.bench.around import around_ms_1080p, object_logits


def test_the_parts_are_timed_and_make_up_the_whole() -> None:
    threads = cv2.getNumThreads()
    found = around_ms_1080p(reps=5)
    parts = found.picture_ms + found.masks_ms + found.pack_ms + found.memory_ms
    assert min(found.picture_ms, found.masks_ms, found.pack_ms, found.memory_ms) > 0
    assert 0.4 * parts < found.total_ms < 2.5 * parts
    assert cv2.getNumThreads() == threads


def test_objects_are_as_large_as_things_in_a_picture_and_lie_apart() -> None:
    masks = [object_logits(number, side=256) > 0 for number in range(3)]
    assert all(0.01 < mask.mean() < 0.1 for mask in masks)
    assert sum(masks).max() == 1
