"""What a suite has measured so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """One figure. aim: what it should reach, if anything; `what` says what it is, in words."""

    key: str
    value: float
    what: str
    aim: float | None = None


@dataclass
class Figures:
    """Metrics in the order of measuring, and tables and sentences about them.

    details: further numbers, for the file alone. tables: (title, rows).
    """

    shown: list[Metric] = field(default_factory=list)
    details: dict[str, float] = field(default_factory=dict)
    tables: list[tuple[str, list[dict[str, str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    on_progress: Callable[[str], None] = lambda _text: None

    @property
    def metrics(self) -> dict[str, float]:
        """Key -> number, as the JSON file has them."""
        return {metric.key: metric.value for metric in self.shown} | self.details

    def add(self, key: str, value: float, what: str, *, aim: float | None = None) -> None:
        """One more figure; a key is given once."""
        assert key not in self.metrics
        self.shown.append(Metric(key, round(float(value), 4), what, aim))

    def detail(self, key: str, value: float) -> None:
        """A number that is written but not shown, such as the end of an interval."""
        assert key not in self.metrics
        self.details[key] = round(float(value), 4)

    def note(self, sentence: str) -> None:
        """Something that a reader of the figures should know."""
        self.notes.append(sentence)

    def progress(self, text: str) -> None:
        """Say what is being measured now."""
        self.on_progress(text)
