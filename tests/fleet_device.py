"""A device of a fleet, without cameras or networks: fleet_device.py ROUTER NAME."""

import sys
import time

import numpy as np

from edgeperc.control import AppText, ControlError, DaemonStatus, RecordingStatus
from edgeperc.packet import Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sinks.fleet import Fleet


class FakeDaemon:
    """Takes every app but those that name code."""

    def __init__(self):
        self.toml = "rig = 'twin'"

    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)

    def app(self):
        return AppText(name="test", toml=self.toml, etag=str(len(self.toml)))

    def validate(self, toml):
        if ":" in toml:
            raise ControlError("it names code", why="impossible", hint="name something installed")

    def apply(self, toml, etag):
        self.validate(toml)
        if etag != self.app().etag:
            raise ControlError("the app has changed", why="conflict")
        self.toml = toml
        return self.app()

    def start_recording(self, name="", **limits):
        return RecordingStatus(name=name, path="/tmp/x.mcap", running=True)

    def stop_recording(self):
        raise ControlError("nothing is recorded", why="unknown")


def label_map(seq):
    now = time.monotonic_ns()
    return LabelMap(
        stamp=Stamp(source="wide", seq=seq, start_ns=now, end_ns=now),
        labels=np.full((30, 40), seq % 5, np.uint8),
        classes=("road", "car"),
        model=ModelRef(name="net"),
    )


def main():
    sink = Fleet(
        router=sys.argv[1], daemon=FakeDaemon(), device=sys.argv[2], insecure=True, lease_s=3
    )
    seq = 0
    while True:
        sink.write(label_map(seq))
        seq += 1
        time.sleep(0.2)


if __name__ == "__main__":
    main()
