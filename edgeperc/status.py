"""What the parts of a run have done so far, as tables, reports and health see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgeperc.meter import MeterSnapshot
from edgeperc.pairs import PairCounters
from edgeperc.result import ModelRef
from edgeperc.validate import Counters


@dataclass(kw_only=True)
class SensorStatus:
    """What a sensor or a mirror has done so far."""

    name: str
    state: Literal["running", "lost", "ended", "failed"] = "running"
    packets: int = 0
    events: int = 0
    frames: int = 0
    moves: int = 0
    error: str = ""
    hint: str = ""
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, kw_only=True)
class PipelineStatus:
    """What a pipeline has done so far. note: what else a person should know of it.

    pairs: of one that fuses frames and events.
    """

    name: str
    model: ModelRef
    meter: MeterSnapshot
    error: str
    note: str = ""
    pairs: PairCounters | None = None
