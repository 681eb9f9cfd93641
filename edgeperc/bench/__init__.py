"""Speed on this machine: `edgeperc bench`, as ratios within one run wherever possible."""

from edgeperc.bench.suite import SUITES, run

__all__ = ["SUITES", "run"]
