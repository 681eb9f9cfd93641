"""What prompts mean in a picture that a client brings.

asked = PromptedPictures(places.find_model("promptable"))
instances = asked.answer(frame, (Prompt(box=(300, 120, 520, 400)),), go_on=lambda: None)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.packet import Frame
from edgeperc.places import ModelFolder
from edgeperc.prompt import ImageSession
from edgeperc.prompting.prompts import Prompt, naming
from edgeperc.result import Instances, ModelRef, Timings


class PromptedPictures:
    """A promptable model. Serves one caller at a time. Raises ModelError if it cannot be loaded.

    A picture that comes again, as with a further click, is not encoded again.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 1) -> None:
        self._session = ImageSession(folder, threads=threads)
        self._seen = b""

    @property
    def ref(self) -> ModelRef:
        """What runs."""
        return self._session.ref

    @property
    def max_points(self) -> int:
        """Points that a prompt may have; a box counts as two."""
        return self._session.max_points

    def answer(
        self, frame: Frame, prompts: Iterable[Prompt], *, go_on: Callable[[], None]
    ) -> Instances:
        """The object that each prompt means, its id the prompt's place, from 1 on.

        go_on: called before each step, raises where nobody waits any more. Raises DataError for a
        prompt that does not fit the picture or the model.
        """
        begun_ns = time.monotonic_ns()
        self._look(frame.image)
        looked_ns = time.monotonic_ns()
        found, scores = [], []
        for number, prompt in enumerate(prompts, start=1):
            go_on()
            with naming(number):
                answer = self._session.ask(prompt)
            found.append(masks.encode(answer.masks[0]))
            scores.append(float(answer.scores[0]))
        now_ns = time.monotonic_ns()
        return Instances(
            stamp=frame.stamp,
            ids=np.arange(1, len(found) + 1),
            masks=tuple(found),
            boxes=np.array([masks.box(each) for each in found], np.float32).reshape(-1, 4),
            scores=np.array(scores, np.float32),
            visible=np.ones(len(found), np.float32),
            picture_px=(frame.image.shape[1], frame.image.shape[0]),
            model=self.ref,
            timings=Timings(
                represent_ns=looked_ns - begun_ns,
                infer_ns=now_ns - looked_ns,
                total_ns=now_ns - begun_ns,
            ),
        )

    def _look(self, image: NDArray[np.uint8]) -> None:
        digest = blake2b(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
        if digest.digest() != self._seen:
            self._seen = b""  # where the picture cannot be encoded, the old one is gone, too
            self._session.look(image)
            self._seen = digest.digest()
