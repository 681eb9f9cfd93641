"""Frames and events together: how fast the scans are that MambaSeg is made of."""

from __future__ import annotations

import importlib

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError


def measure(figures: Figures, _recording: object = None) -> None:
    """scan_speedup_encoder and scan_speedup_16state. Raises ConfigError without torch."""
    try:
        bench_scan = importlib.import_module("edgeperc.offline.bench_scan")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("edgeperc"):
            raise
        raise ConfigError(
            f"bench fusion needs {error.name}", hint="pip install 'edgeperc[offline]'"
        ) from None
    bench_scan.measure(figures)
