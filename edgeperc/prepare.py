"""Load what an app's networks need once, ahead, so that its first start is quick.

    for made in prepare(["search"], show=print):
        print(made.network, made.provider, made.seconds, made.bytes)

TensorRT and OpenVINO build engines, which `edgeperc.inference.engines` keeps: minutes on a small
GPU. The processor's own provider has nothing to keep: a network is loaded as quickly as its
optimised copy would be. The kernels that turn events into tensors are compiled and kept by numba.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeperc import places
from edgeperc.config import ModelCard, PipelineTable
from edgeperc.errors import ConfigError, ModelError, blame
from edgeperc.inference import engines
from edgeperc.inference.providers import asked
from edgeperc.inference.session import Opened, telling
from edgeperc.packet import Frame, Stamp
from edgeperc.plan import Plan, open_model
from edgeperc.prompt import Efficient, ImageSession, Prompt, VideoSession

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A network that is ready. model: whose. was_there: nothing had to be built.

    network: its file; "" is a model without onnxruntime, as the spike-driven ones. bytes: of its
    engine on disk, 0 where its provider builds none. kept: the engine's folder, or "".
    """

    model: str
    network: str
    provider: str
    seconds: float
    bytes: int = 0
    was_there: bool = False
    kept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What is being done: a network is loaded, or its engine built. bytes: on disk so far."""

    model: str
    network: str
    seconds: float
    bytes: int = 0


@dataclass(slots=True)
class _Work:
    """A model to be loaded and run as a pipeline would. picture_px: of its sensor, if known."""

    table: PipelineTable
    where: str
    picture_px: tuple[int, int] | None = None
    opened: list[Opened] = field(default_factory=list)
    began: list[tuple[str, float]] = field(default_factory=list)
    error: BaseException | None = None
    provider: str = ""

    def run(self) -> None:
        """In a thread: load and run."""
        try:
            with telling(self._hear), blame(self.where):
                self._load()
            for opened in self.opened:
                if opened.engine:
                    opened.engine.keep()
        except BaseException as error:  # for whoever waits
            self.error = error

    def _hear(self, said: Opened | Path) -> None:
        if isinstance(said, Path):
            self.began.append((said.name, time.monotonic()))
        else:
            self.opened.append(said)

    def _load(self) -> None:
        model = places.find_model(self.table.model)
        card = model.card
        width_px, height_px = self.picture_px or (card.input.width_px, card.input.height_px)
        stamp = Stamp(source="prepare", seq=0, start_ns=0, end_ns=1)
        frame = Frame(stamp=stamp, image=np.zeros((height_px, width_px, 3), np.uint8))
        if card.prompt is not None:
            self._prompt(model, card.prompt.kind, frame)
            return
        self.began.append(("", time.monotonic()))
        runs = open_model(model, self.table)  # they warm up, at the size of the card
        self.provider = runs.ref.provider
        if self.picture_px and card.input.kind == "frame" and card.frames is None:
            runs(frame)

    def _prompt(self, model: places.ModelFolder, kind: str, frame: Frame) -> None:
        threads, providers = self.table.threads, asked(self.table)
        prompt = Prompt(points=np.array([[1, 1]], np.float32))
        if kind == "image":
            pictures = ImageSession(model, threads=threads, providers=providers)
            pictures.look(frame.image)
            pictures.ask(prompt)
            return
        options = self.table.prompt
        efficient = Efficient(
            window_routing=options.window_routing, memory_keep_share=options.memory_keep_share
        )
        video = VideoSession(model, threads=threads, providers=providers, efficient=efficient)
        video.step(frame, {1: prompt})
        video.step(frame)  # now there is a memory to attend to

    def made(self) -> Iterator[Made]:
        """What became of each network, in the order in which they were loaded."""
        if not self.opened:
            seconds = time.monotonic() - self.began[0][1]
            yield Made(model=self.table.model, network="", provider=self.provider, seconds=seconds)
        for opened in self.opened:
            engine = opened.engine
            kept = engine is not None and engine.place.is_dir()
            yield Made(
                model=self.table.model,
                network=opened.path.name,
                provider=opened.provider,
                seconds=opened.seconds,
                bytes=engines.size_bytes(engine.place) if engine and kept else 0,
                was_there=bool(engine and engine.built),
                kept=str(engine.place) if engine and kept else "",
            )


def prepare(names: Sequence[str], *, show: Callable[[Doing], None]) -> Iterator[Made]:
    """Load and run every network of these apps and models once, one after the other.

    show: called several times a second with what is being done. Raises ConfigError for an unknown
    name, ModelError if a network cannot be loaded as its pipeline says.
    """
    seen: set[str] = set()
    for work in [each for name in names for each in _works(name)]:
        same = repr((work.table.model, asked(work.table), work.table.engine, work.picture_px))
        if same in seen:
            continue
        seen.add(same)
        thread = threading.Thread(target=work.run, daemon=True)  # it cannot be stopped, but left
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_S)
            if work.began and thread.is_alive():
                network, since_s = work.began[-1]
                so_far = [each.bytes for each in engines.building() if each.network == network]
                show(
                    Doing(
                        model=work.table.model,
                        network=network,
                        seconds=time.monotonic() - since_s,
                        bytes=sum(so_far),
                    )
                )
        if work.error:
            raise work.error
        yield from work.made()


def _works(name: str) -> Iterator[_Work]:
    """The pipelines of an app, or a model by itself. Raises ConfigError."""
    a_file = name.endswith(".toml") and Path(name).name != "model.toml"
    if a_file or name in places.names("apps"):
        plan = Plan.load(name)
        for table in plan.app.pipelines:
            _, where = plan.pipeline(table.name)
            yield _Work(table, f"{where} model", _picture_px(plan.rig.sensors, table))
        return
    try:
        card: ModelCard = places.find_card(name).card
    except ConfigError as error:
        known = ", ".join((*places.names("apps"), *places.names("models")))
        raise ConfigError(f"'{name}' is no app and no model", hint=f"known are: {known}") from error
    if not card.files:
        raise ModelError(f"model '{card.name}': its card names no files")
    yield _Work(PipelineTable(name=card.name, input="", model=name), f"model '{card.name}'")


def _picture_px(
    sensors: Mapping[str, Mapping[str, Any]], table: PipelineTable
) -> tuple[int, int] | None:
    """Width and height of what the pipeline will see, where the rig's file says it."""
    sensor = sensors.get(table.frames or table.input, {})
    width_px, height_px = sensor.get("width_px"), sensor.get("height_px")
    if isinstance(width_px, int) and isinstance(height_px, int):
        return width_px, height_px
    return None
