"""A process that records until it is killed, and says on its output what it has handed over.

python recording_process.py FILE [WORD]: a line "<seq> <monotonic s>" for each packet, ten of which
come every 20 ms. WORD "limit" lets no file grow beyond 3 MB, as a full disk would.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edgeperc.packet import Events, Stamp
from edgeperc.recording.head import About
from edgeperc.recording.recorder import Recorder

COUNT = 2000


def packet(seq: int) -> Events:
    random = np.random.default_rng(seq)
    start_us = 2000 * seq
    return Events(
        stamp=Stamp(
            source="dvs", seq=seq, start_ns=start_us * 1000, end_ns=(start_us + 2000) * 1000
        ),
        t=start_us + np.sort(random.integers(0, 2000, COUNT)),
        x=random.integers(0, 346, COUNT).astype(np.uint16),
        y=random.integers(0, 260, COUNT).astype(np.uint16),
        p=random.integers(0, 2, COUNT).astype(np.bool_),
        width_px=346,
        height_px=260,
    )


def main() -> None:
    if "limit" in sys.argv[2:]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    recorder = Recorder(Path(sys.argv[1]), About(values={"app": "test"}, files={}))
    seq = 0
    while not recorder.error:
        for _ in range(10):
            recorder.put(packet(seq))
            sys.stdout.write(f"{seq} {time.monotonic()}\n")
            seq += 1
        sys.stdout.flush()
        time.sleep(0.02)
    recorder.close()
    print(f"ended: {recorder.error}", flush=True)


if __name__ == "__main__":
    main()
