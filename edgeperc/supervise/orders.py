"""What the front process tells its workers, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeperc.result import ModelRef
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.validate import Policy


@dataclass(frozen=True, kw_only=True)
class SensorOrder:
    """A sensor's table in the rig's file, and what becomes of packets that break the rules."""

    name: str
    table: dict[str, Any]
    where: str
    folder: Path
    policy: Policy
    max_gap_us: int


@dataclass(frozen=True, kw_only=True)
class PipelineOrder:
    """A pipeline of a plan, see `edgeperc.plan.Plan`."""

    name: str
    plan: Any


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """What a pipeline that can be prompted allows."""

    source: str
    max_points: int
    max_sessions: int
    max_objects: int
    ttl_s: float


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has everything it needs. ref, prompted: of a pipeline."""

    ref: ModelRef | None = None
    prompted: Prompted | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a worker is. progress: grows with what it gets done.

    at: number of the packet that it is at; 0 is none. silent: sensors that a pipeline waits for in
    vain. lost: packets that it was too slow to read. picture_px: of one that can be prompted.
    """

    sensor: SensorStatus | None = None
    pipeline: PipelineStatus | None = None
    progress: int = 0
    at: int = 0
    silent: frozenset[str] = field(default_factory=frozenset)
    lost: int = 0
    picture_px: tuple[int, int] = (0, 0)
