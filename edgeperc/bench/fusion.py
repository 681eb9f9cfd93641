"""Frames and events together: how fast MambaSeg is, and the scans that it is made of."""

from __future__ import annotations

import importlib

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError

_PARTS = ("bench_scan", "bench_fusion")


def measure(figures: Figures, _recording: object = None) -> None:
    """Speed-ups of the scans, and the network as a whole. Raises ConfigError without torch."""
    try:
        parts = [importlib.import_module(f"edgeperc.offline.{name}") for name in _PARTS]
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("edgeperc"):
            raise
        raise ConfigError(
            f"bench fusion needs {error.name}", hint="pip install 'edgeperc[offline]'"
        ) from None
    for part in parts:
        part.measure(figures)
