"""The suite `serve`: label maps from one daemon to many gRPC clients, each in another process.

Three processes or more take part: one publishes and serves, the others subscribe by
`edgeperc.client` and compare `published_ns` with the time at which they have the decoded map.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeperc.bench.figures import Figures
from edgeperc.bench.serve_worker import RATE_HZ, SIZE_PX

FEW, MANY, DEAD, TOGETHER, PAIRS = 4, 45, 5, 9, 5
SECONDS, WARM_S = 6.0, 1.5
PAUSE_MS, TRIES = 10.0, 3
"""A round in which the machine stood still for longer is measured again, so many times in all."""
MANY_RATE_HZ = 4.0
"""Of each of the many clients: all maps to 50 clients would be 1.8 GB/s."""

START = "import sys; from edgeperc.bench.serve_worker import main; main(sys.argv[1:])"


def measure(figures: Figures, recording: Path | None) -> None:
    """Latency to four clients, the server's share of a core, and what dead clients cost others."""
    figures.progress("4 clients")
    few = calm_round_of([["--clients", "1"]] * FEW)
    figures.add(
        "p99_ms_4_clients",
        few.p99_ms,
        f"{FEW} clients, {SIZE_PX[0]} × {SIZE_PX[1]} px at {RATE_HZ:g} Hz: published to decoded",
        aim=2.0,
    )
    figures.add("server_core_share", few.core_share, "of one core, the server's process", aim=0.15)
    figures.detail("p50_ms_4_clients", few.p50_ms)
    figures.detail("received_share_4_clients", few.received_share)
    figures.detail("client_core_share", few.client_core_share)
    figures.detail("pause_ms_4_clients", few.pause_ms)
    rate = ["--rate", str(MANY_RATE_HZ)]
    readers = [["--clients", str(TOGETHER), *rate]] * (MANY // TOGETHER)
    ratios, pauses_ms = [], []
    for number in range(PAIRS):
        figures.progress(f"50 clients, {number + 1} of {PAIRS}")
        alone = calm_round_of(readers)
        beside = calm_round_of([*readers, ["--clients", str(DEAD), "--dead"]])
        ratios.append(beside.p99_ms / alone.p99_ms)
        pauses_ms += [alone.pause_ms, beside.pause_ms]
        figures.detail(f"p99_ms_{MANY}_clients_{number}", alone.p99_ms)
        figures.detail(f"p99_ms_{MANY}_and_{DEAD}_dead_{number}", beside.p99_ms)
    figures.detail("pause_ms_50_clients", max(pauses_ms))
    figures.add(
        "p99_ratio_50_clients_5_dead",
        float(np.median(ratios)),
        f"p99 of {MANY} clients at {MANY_RATE_HZ:g} Hz beside {DEAD} that read nothing, to without",
        aim=1.2,
    )
    figures.note("Server and clients share this machine's cores; on loopback, label maps as ZSTD.")
    figures.note("pause_ms: the longest time for which a process that only sleeps was not woken.")


class Round:
    """What one run of a server with clients gave. Times in ms, shares of 1.

    client_core_share: of a client's process. pause_ms: how long the machine stood still meanwhile,
    for whom does nothing at all.
    """

    def __init__(
        self,
        served: dict[str, float],
        got: Sequence[dict[str, Any]],
        pause_ms: float,
    ) -> None:
        self.pause_ms = pause_ms
        latencies_ms = [ms for each in got for ms in each["latencies_ms"]]
        self.client_core_share = float(np.mean([each["core_share"] for each in got]))
        self.p50_ms, self.p99_ms = np.percentile(latencies_ms, [50, 99]).tolist()
        self.core_share = served["cpu_s"] / served["wall_s"]
        self.received_share = len(latencies_ms) / served["published"] / len(got)


def calm_round_of(clients: Sequence[Sequence[str]]) -> Round:
    """The first of TRIES rounds in which the machine did not stand still, else the calmest."""
    calmest: Round | None = None
    for _ in range(TRIES):
        measured = round_of(clients)
        if calmest is None or measured.pause_ms < calmest.pause_ms:
            calmest = measured
        if measured.pause_ms <= PAUSE_MS:
            break
    assert calmest
    return calmest


def round_of(clients: Sequence[Sequence[str]]) -> Round:
    """Serve for some seconds to processes of clients with these options."""
    with ExitStack() as stack:
        server = stack.enter_context(_process("server"))
        address = _said(server)["address"]
        readers = [stack.enter_context(_process("client", address, *each)) for each in clients]
        for reader in readers:
            _said(reader)  # it has subscribed
        time.sleep(WARM_S)
        for process in (server, *readers):
            _tell(process, "begin")
        pause_ms = longest_pause_ms(SECONDS)
        for process in (server, *readers):
            _tell(process, "end")
        got = [_said(reader) for reader in readers]
        return Round(_said(server), got, pause_ms)


def longest_pause_ms(seconds: float, *, nap_s: float = 2e-3) -> float:
    """Nap again and again; how long the longest nap went beyond its time."""
    end_s = last_s = time.monotonic()
    end_s += seconds
    longest_s = 0.0
    while last_s < end_s:
        time.sleep(nap_s)
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s - nap_s), now_s
    return longest_s * 1e3


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", START, *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def _tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
