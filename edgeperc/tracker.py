"""A promptable video network as the model of a pipeline: what is pointed at comes as Instances.

tracker = Tracker(video, Sessions(source="wide", max_points=15))
session = tracker.sessions.open()
session.ask(Add(1, Prompt(box=(300, 120, 520, 400))), answer=print)
instances = tracker(frame)

One network serves all sessions: a picture is encoded once, whoever asks. `Tracker.__call__` runs in
the pipeline's thread and alone touches the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from edgeperc.config import PipelineTable, PromptedObject
from edgeperc.errors import ConfigError, DataError, EdgepercError, ModelError
from edgeperc.packet import Frame, ModelInput
from edgeperc.places import ModelFolder
from edgeperc.prompting.prompts import Prompt
from edgeperc.result import Instances, ModelRef
from edgeperc.sessions import Accepted, Add, Asked, RefusedError, Sessions


class Video(Protocol):
    """What follows objects from picture to picture; see `edgeperc.prompt.VideoSession`."""

    @property
    def ref(self) -> ModelRef:
        """What really runs."""

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of those that are followed."""

    def step(self, frame: Frame, prompts: Mapping[int, Prompt]) -> Instances:
        """Follow all objects into `frame`, and apply prompts there. Raises EdgepercError.

        One that is raised for a prompt comes before anything has changed.
        """

    def remove(self, object_id: int) -> None:
        """Follow an object no more."""

    def reset(self) -> None:
        """Forget everything."""


def open_tracker(model: ModelFolder, table: PipelineTable) -> Tracker:
    """The tracker of a pipeline, its networks loaded. Raises ModelError or ConfigError."""
    from edgeperc.inference.providers import asked
    from edgeperc.prompt import Efficient, VideoSession

    options = table.prompt
    efficient = Efficient(
        window_routing=options.window_routing, memory_keep_share=options.memory_keep_share
    )
    video = VideoSession(model, threads=table.threads, providers=asked(table), efficient=efficient)
    sessions = Sessions(
        source=table.input,
        max_points=video.max_points,
        max_sessions=options.max_sessions,
        max_objects=options.max_objects,
        ttl_s=options.ttl_s,
    )
    return Tracker(
        video,
        sessions,
        prompts=[
            (each.frame, _prompt(each, number)) for number, each in enumerate(options.objects, 1)
        ],
    )


def _prompt(table: PromptedObject, number: int) -> Prompt:
    labels = [1.0] * len(table.points) + [0.0] * len(table.background)
    points = np.array([*table.points, *table.background], np.float32).reshape(-1, 2)
    box = None if table.box is None else np.array(table.box, np.float32)
    try:
        return Prompt(points=points, labels=np.array(labels, np.float32), box=box)
    except DataError as error:
        raise ConfigError(f"prompt.objects #{number}: {error}", hint=error.hint) from error


class Tracker:
    """A model that answers for frames with the Instances of all sessions' objects.

    prompts: (n, Prompt): objects that are nobody's, from the n-th frame on, 0 being the first.
    """

    def __init__(
        self, video: Video, sessions: Sessions, *, prompts: Sequence[tuple[int, Prompt]] = ()
    ) -> None:
        self.sessions = sessions
        self.picture_px = (0, 0)
        self._shape: tuple[int, ...] = ()
        self._video = video
        self._planned = sorted(enumerate(prompts, start=1), key=lambda each: each[1][0])
        self._frames = 0
        self._misplaced: list[ConfigError] = []

    @property
    def source(self) -> str:
        """The sensor that it looks at."""
        return self.sessions.source

    @property
    def ref(self) -> ModelRef:
        """What really runs."""
        return self._video.ref

    def __call__(self, packet: ModelInput, /) -> Instances:
        """Follow all objects into a frame, and do what was asked since the last one.

        Raises ModelError for events or a frame of no area, ConfigError for a prompt of the app's
        own that does not fit the picture, and what the network raises.
        """
        if not isinstance(packet, Frame):
            raise ModelError(f"model '{self.ref.name}' takes frames, got events")
        height_px, width_px = packet.image.shape[:2]
        if height_px * width_px == 0:
            raise ModelError(f"a frame of {width_px} × {height_px} px has no pixels")
        self._take_shape(packet.image.shape)
        self._plan()
        self.sessions.expire()
        todo = self.sessions.take(self.picture_px, packet.stamp)
        for instance in todo.removed.intersection(self._video.objects):
            self._video.remove(instance)
        found = self._follow(packet, todo.prompts)
        if self._misplaced:
            raise self._misplaced.pop(0)
        return found

    def _take_shape(self, shape: tuple[int, ...]) -> None:
        """Forget all objects where pictures are of another size or kind: no mask fits any more.

        As those of a camera that was lost and came back with other settings.
        """
        before, self._shape = self._shape, shape
        self.picture_px = (shape[1], shape[0])
        if before not in ((), shape):
            self._video.reset()
            kind = f"{shape[1]} × {shape[0]} px {'RGB' if len(shape) == 3 else 'grey'}"
            lost = RefusedError(
                f"pictures of '{self.source}' are now {kind}: all objects are lost",
                hint="reset, and prompt anew",
            )
            self.sessions.lose_all(lost)

    def _plan(self) -> None:
        """Ask for the app's own objects once their frame has come."""
        while self._planned and self._planned[0][1][0] <= self._frames:
            number, (_, prompt) = self._planned.pop(0)
            answer = partial(self._keep_error, number)
            self.sessions.ask_for_the_house(Add(number, prompt), answer)
        self._frames += 1

    def _keep_error(self, number: int, said: Accepted | EdgepercError) -> None:
        if isinstance(said, EdgepercError):
            error = ConfigError(f"prompt.objects #{number}: {said}", hint=said.hint)
            self._misplaced.append(error)

    def _follow(self, frame: Frame, asked: dict[int, Asked]) -> Instances:
        """Run the network, where there is anything to run it for, and answer the prompts."""
        if asked:
            try:
                found = self._video.step(
                    frame, {instance: each.request.prompt for instance, each in asked.items()}
                )
            except EdgepercError as error:
                self.sessions.give_back(asked, error, followed=self._video.objects)
            else:
                for instance, each in asked.items():
                    each.answer(Accepted(each.request.number, instance, frame.stamp))
                return found
        return self._video.step(frame, {}) if self._video.objects else self._nothing(frame)

    def _nothing(self, frame: Frame) -> Instances:
        """No instances, at no cost."""
        return Instances(
            stamp=frame.stamp,
            ids=np.empty(0, np.int64),
            masks=(),
            boxes=np.empty((0, 4), np.float32),
            scores=np.empty(0, np.float32),
            visible=np.empty(0, np.float32),
            picture_px=self.picture_px,
            model=self.ref,
        )
