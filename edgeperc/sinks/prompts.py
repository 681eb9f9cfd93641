"""Prompts that clients send: bounded before anything of a mask's size is made.

prompt = prompt_of(message, picture_px=(960, 448), most_points=15)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.prompting.prompts import Prompt, naming
from edgeperc.proto.codec import mask_of
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.sessions import RefusedError

MOST_PROMPTS = 64
"""In one call."""


def prompt_of(
    message: pb.ObjectPrompt | tracking.AddPrompt,
    *,
    picture_px: tuple[int, int],
    most_points: int,
) -> Prompt:
    """Points, box and mask of a message. picture_px: (0, 0) where none has come yet.

    Raises RefusedError for too many points and a mask of another size, DataError for what makes no
    sense anywhere.
    """
    if len(message.points) > most_points:
        raise RefusedError(
            f"a prompt of {len(message.points):,} points; at most {most_points}", why="full"
        )
    box, mask = None, None
    if message.HasField("box"):
        edges = message.box
        box = np.array([edges.x_min, edges.y_min, edges.x_max, edges.y_max], np.float32)
    if message.HasField("mask"):
        _check_size(message.mask, picture_px)
        mask = masks.decode(mask_of(message.mask))
    return Prompt(
        points=np.array([(point.x, point.y) for point in message.points], np.float32),
        labels=np.array([not point.background for point in message.points], np.float32),
        box=box,
        mask=mask,
    )


def prompts_of(
    messages: Sequence[pb.ObjectPrompt], *, picture_px: tuple[int, int], most_points: int
) -> Iterator[Prompt]:
    """The prompts about one picture, held to it: all are looked at before the first is given.

    Masks are unpacked one at a time, since a few bytes may hold one of many megapixels. Raises as
    `prompt_of`, naming the object.
    """
    check_count(len(messages))
    made = partial(prompt_of, picture_px=picture_px, most_points=most_points)
    for number, message in enumerate(messages, start=1):
        with naming(number):
            made(message).check(*picture_px)
    return map(made, messages)


def check_count(count: int) -> None:
    """Raise for no prompts (DataError), or too many for one call (RefusedError)."""
    if count == 0:
        raise DataError("nothing is asked", hint="a prompt is points, a box or a mask")
    if count > MOST_PROMPTS:
        raise RefusedError(f"{count:,} prompts; at most {MOST_PROMPTS} in one call", why="full")


def _check_size(mask: pb.Mask, picture_px: tuple[int, int]) -> None:
    width_px, height_px = picture_px
    if width_px == 0:
        raise RefusedError("no picture has come yet that a mask could be held to")
    if (mask.width, mask.height) != picture_px:
        raise RefusedError(
            f"a mask of {mask.width} × {mask.height} px in pictures of {width_px} × {height_px} px"
        )
