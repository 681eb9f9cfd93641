"""A worker process: `python -m edgeperc.supervise sensor|pipeline FD`, started by the daemon."""

from __future__ import annotations

import signal
import sys

from edgeperc.supervise.child import Child


def main() -> None:
    """Serve the front process at the other end of the inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the front, which says stop
    kind, fd = sys.argv[1:]
    child = Child(int(fd))
    if kind == "sensor":
        from edgeperc.supervise.sensor import SensorWorker

        SensorWorker(child).main()
    else:
        from edgeperc.supervise.pipeline import PipelineWorker

        PipelineWorker(child).main()


if __name__ == "__main__":
    main()
