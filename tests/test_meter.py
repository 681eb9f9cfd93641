from __future__ import annotations

from edgeperc.meter import STAGES, Meter
from edgeperc.result import Timings


def test_percentiles_of_each_stage_in_ms() -> None:
    meter = Meter()
    for ms in range(1, 101):
        ns = ms * 1_000_000
        meter.finished(Timings(wait_ns=ns, represent_ns=0, infer_ns=2 * ns, total_ns=3 * ns), ns)
    rows = {row.stage: row for row in meter.snapshot().stages}
    assert tuple(rows) == STAGES
    assert rows["wait"].p50_ms == 50.5
    assert rows["infer"].p50_ms == 101.0
    assert 99 <= rows["write"].p99_ms <= 100


def test_counts_and_an_empty_meter() -> None:
    meter = Meter()
    assert meter.snapshot().stages == ()
    assert meter.snapshot().rate_hz == 0
    meter.dropped()
    meter.failed()
    meter.failed()
    snapshot = meter.snapshot()
    assert (snapshot.results, snapshot.dropped, snapshot.failed) == (0, 1, 2)
