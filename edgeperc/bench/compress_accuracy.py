"""How well compressed networks answer, measured where torch is: `edgeperc bench compress-accuracy`.

Unlike other figures these do not hang on the machine: each network is compressed and scored once,
which takes minutes, and what it scored is kept in a folder for the next run.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError

KEYS = (
    *("w8a8_drop", "w6a6_drop"),
    *("w4a4_recovered_share", "w4a4_minus_ptq4sam", "w4a4_minus_qdrop"),
    *("pcc_minus_mse_outliers", "pcc_minus_mse_outliers_w6a6", "pcc_recovered_outliers"),
    *("dfq_minus_real_w6a6", "dfq_minus_noise_w4a4"),
)
"""Names of `edgeperc.offline.bench_accuracy.KEYS`, here without torch."""


def measure(
    figures: Figures,
    recording: Path | None,
    settings: Any = None,
    *,
    only: tuple[str, ...] | None = None,
) -> None:
    """settings: `edgeperc.offline.bench_accuracy_book.Settings`, of which `only` takes the place of
    its keys. Raises ConfigError without any.
    """
    if settings is None:
        raise ConfigError(
            "bench compress-accuracy needs a trained network and pictures",
            hint="--weights FILE --data FOLDER, with bsds500 and davis in it",
        )
    if only is not None:
        settings = replace(settings, only=only)
    import_module("edgeperc.offline.bench_accuracy").measure(figures, settings)
