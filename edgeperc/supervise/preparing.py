"""What a process does before it can work: it says which network it loads, the front for how long.

with announcing(model, say=child.say):      # in the process that loads
    open_model(...)

doing = Doing(*content)                     # in the front, told ("preparing", content)
doing.status(pid)                           # with the engine that is being built, if one is
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeperc.config import ModelCard
from edgeperc.control import Preparing
from edgeperc.inference.engines import building

if TYPE_CHECKING:
    from edgeperc.inference.session import Opened

INSTEAD = frozenset({"encoder_head", "encoder_middle", "encoder_tail", "memory_retrieval"})
"""Roles of networks that are loaded in place of others, where a pipeline asks for it."""


@contextmanager
def announcing(card: ModelCard, say: Callable[[str, Any], None]) -> Iterator[None]:
    """Say ("preparing", (model, network, number, count)) for each network that is loaded here."""
    from edgeperc.inference.session import telling  # which the front does without

    networks = [
        file for file in card.files if file.path.endswith(".onnx") and file.role not in INSTEAD
    ]
    begun: list[str] = []
    say("preparing", (card.name, "", 0, len(networks)))

    def hear(said: Opened | Path) -> None:
        if isinstance(said, Path):
            begun.append(said.name)
            count = max(len(networks), len(begun))
            say("preparing", (card.name, said.name, len(begun), count))

    with telling(hear):
        yield


@dataclass(frozen=True)
class Doing:
    """What a process said that it loads, and when it did."""

    model: str
    network: str
    number: int
    count: int
    since_s: float = field(default_factory=time.monotonic)

    def status(self, pid: int) -> Preparing:
        """How far it is. pid: of the process."""
        mine = (pid, self.network)
        sizes = [each.bytes for each in building() if (each.pid, each.network) == mine]
        return Preparing(
            model=self.model,
            network=self.network,
            number=self.number,
            count=self.count,
            seconds=time.monotonic() - self.since_s,
            bytes=sum(sizes),
        )


def building_late(model: str, pid: int) -> Preparing | None:
    """What a process that runs already builds: the engine of a network of any length."""
    for each in building():
        if each.pid == pid:
            return Preparing(
                model=model,
                network=each.network,
                number=0,
                count=0,
                seconds=each.seconds,
                bytes=each.bytes,
            )
    return None
