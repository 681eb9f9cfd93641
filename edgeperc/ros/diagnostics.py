"""How the daemon is, as a diagnostic_msgs/DiagnosticArray: itself, its sensors and pipelines."""

from __future__ import annotations

import time
from typing import Any

from edgeperc.control import DaemonStatus
from edgeperc.ros.codec import make
from edgeperc.ros.topics import DIAGNOSTICS, time_message

_LEVELS = {"OK": 0, "WARN": 1, "ERROR": 2, "STALE": 3}


def diagnostics(status: DaemonStatus, offset_ns: int) -> Any:
    """The message, stamped now. offset_ns: wall clock minus the host's monotonic clock."""
    level = {"serving": "OK", "degraded": "WARN"}.get(status.state, "STALE")
    rows = [
        _diagnostic(
            f"edgeperc: {status.app}",
            level,
            status.errors[0] if status.errors else status.state,
            {"version": status.version, "uptime_s": f"{status.uptime_s:.0f}"}
            | {f"note {k + 1}": note for k, note in enumerate(status.notes)},
        )
    ]
    for sensor in status.sensors:
        broken = sensor.state in ("lost", "failed")
        values: dict[str, Any] = {
            "packets": sensor.packets,
            "events": sensor.events,
            "frames": sensor.frames,
        }
        values["dropped"] = sensor.counters.dropped
        rows.append(
            _diagnostic(
                f"edgeperc: sensor {sensor.name}",
                "ERROR" if broken else "OK",
                sensor.error or sensor.state,
                values,
            )
        )
    for pipeline in status.pipelines:
        meter = pipeline.meter
        values = {
            "model": pipeline.model.name,
            "provider": pipeline.model.provider,
            "results": meter.results,
            "rate_hz": f"{meter.rate_hz:.2f}",
            "dropped": meter.dropped,
            "failed": meter.failed,
        }
        for stage in meter.stages:
            values[f"{stage.stage}_p50_ms"] = f"{stage.p50_ms:.2f}"
            values[f"{stage.stage}_p99_ms"] = f"{stage.p99_ms:.2f}"
        message = pipeline.error or pipeline.note or "running"
        level = "ERROR" if pipeline.error else "OK" if meter.results else "STALE"
        rows.append(_diagnostic(f"edgeperc: pipeline {pipeline.name}", level, message, values))
    for worker in status.workers:
        values = {"pid": worker.pid, "restarts": worker.restarts, "rss_bytes": worker.rss_bytes}
        values["beat_s"] = f"{worker.beat_s:.1f}"
        level = "OK" if worker.state in ("running", "ended") else "WARN"
        level = "ERROR" if worker.state == "failed" else level
        message = worker.error or worker.state
        rows.append(_diagnostic(f"edgeperc: process {worker.name}", level, message, values))
    header = make(
        "std_msgs/msg/Header",
        stamp=time_message(time.monotonic_ns() + offset_ns),
        frame_id="",
    )
    return make(DIAGNOSTICS, header=header, status=rows)


def _diagnostic(name: str, level: str, message: str, values: dict[str, Any]) -> Any:
    rows = [
        make("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
        for key, value in values.items()
    ]
    return make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=_LEVELS[level],
        name=name,
        message=message,
        hardware_id="",
        values=rows,
    )
