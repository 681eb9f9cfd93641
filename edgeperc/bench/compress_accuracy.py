"""How well compressed networks answer, measured where torch is: `edgeperc bench compress-accuracy`.

Unlike other figures these do not hang on the machine: each network is compressed and scored once,
which takes minutes, and what it scored is kept in a folder for the next run.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError


def measure(figures: Figures, recording: Path | None, settings: Any = None) -> None:
    """settings: `edgeperc.offline.bench_accuracy_book.Settings`. Raises ConfigError without any."""
    if settings is None:
        raise ConfigError(
            "bench compress-accuracy needs a trained network and pictures",
            hint="--weights FILE --data FOLDER, with bsds500 and davis in it",
        )
    import_module("edgeperc.offline.bench_accuracy").measure(figures, settings)
