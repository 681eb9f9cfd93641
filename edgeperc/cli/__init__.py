"""The verbs of `edgeperc`. Each imports what it needs, so that `--help` answers at once."""

# In the order in which `edgeperc --help` lists them.
from edgeperc.cli import running, recording, prompting, shelves, models, rigs, offline  # noqa: F401, I001
from edgeperc.cli import compressing, roofline, machine, fleet, bench  # noqa: F401
from edgeperc.cli.root import app, main

__all__ = ["app", "main"]
