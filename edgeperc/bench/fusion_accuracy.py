"""What fusing frames with events buys, measured where torch is: `edgeperc bench fusion-accuracy`.

These figures hang on no machine: each network is trained and scored once, which takes a quarter of
an hour of a core, and is kept in a folder for the next run.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError


def measure(figures: Figures, _recording: Path | None = None, settings: Any = None) -> None:
    """settings: `edgeperc.offline.bench_fusion_accuracy.Settings`. Raises ConfigError without."""
    if settings is None:
        raise ConfigError("bench fusion-accuracy needs a folder of networks", hint="--networks DIR")
    import_module("edgeperc.offline.bench_fusion_accuracy").measure(figures, settings)
