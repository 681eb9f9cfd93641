"""Forgets every result: for timing a pipeline without its ways out."""

from __future__ import annotations

from edgeperc.result import Result


class Null:
    """A sink that keeps nothing."""

    where = ""

    def write(self, result: Result) -> None:
        """Forget one result."""

    def close(self) -> None:
        """Nothing to release."""
