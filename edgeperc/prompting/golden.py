"""Pictures, a click, and the masks that a model must answer with, in its folder, to test ports by.

`golden.npz` holds pictures (2, H, W, 3) uint8 RGB, point (2,) x, y px on the first of them, masks
(1 or 2, H, W) bool and scores as torch computed them, and, every `stride` px, the logits behind
them as float16. The second mask is that of the object followed into the second picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import ModelError
from edgeperc.packet import Frame, Stamp
from edgeperc.places import ModelFolder
from edgeperc.prompting.follow import VideoSession
from edgeperc.prompting.image import ImageSession
from edgeperc.prompting.networks import prompt_table
from edgeperc.prompting.prompts import Prompt


def agreement(model: ModelFolder, *, threads: int = 1) -> list[float]:
    """Share of the pixels that each golden mask and the model's answer have in common.

    Raises ModelError if the folder has none, or its networks do not open.
    """
    path = model.file("golden")
    if path is None:
        raise ModelError(f"model '{model.card.name}' has no file of role 'golden'")
    with np.load(path, allow_pickle=False) as held:
        pictures, point, wanted = held["pictures"], held["point"], held["masks"]
    answer = _followed if prompt_table(model.card).kind == "video" else _asked
    found = answer(model, pictures, Prompt(points=point), threads)
    return [float((one == other).mean()) for one, other in zip(found, wanted, strict=True)]


def _asked(model: ModelFolder, pictures: Any, prompt: Prompt, threads: int) -> NDArray[np.bool_]:
    session = ImageSession(model, threads=threads)
    session.look(pictures[0])
    found = session.ask(prompt).masks
    session.close()
    return found


def _followed(
    model: ModelFolder, pictures: Any, prompt: Prompt, threads: int
) -> list[NDArray[np.bool_]]:
    session = VideoSession(model, threads=threads)
    found = []
    for index, picture in enumerate(pictures):
        stamp = Stamp(source="golden", seq=index, start_ns=index, end_ns=index)
        instances = session.step(Frame(stamp=stamp, image=picture), {} if index else {1: prompt})
        found.append(masks.decode(instances.masks[0]))
    session.close()
    return found
