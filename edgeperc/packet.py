"""What a sensor says: a Frame or some Events, each stamped with when its photons arrived.

A Pair is a frame with its events. A mirror says a Gaze: where it points the search camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When and where data was seen. Times in ns on the sensor's clock, first to last photon.

    For a window of events: the half-open window [start_ns, end_ns). `seq` counts without gaps
    at the source, so a gap downstream is a drop.
    """

    source: str
    seq: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaze:
    """Where a steered camera looked, as the mirror measured it. Right and up are positive."""

    pan_rad: float
    tilt_rad: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture. image: (H, W) grey or (H, W, 3) RGB uint8, read-only."""

    stamp: Stamp
    image: NDArray[np.uint8]
    gaze: Gaze | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", _read_only("image", self.image, np.uint8))
        if self.image.ndim != 2 and self.image.shape[2:] != (3,):
            raise TypeError(f"image: shape {self.image.shape}, expected (H, W) or (H, W, 3)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Some events of one camera, in order of time; structure of arrays, 13 bytes an event.

    t: (N,) int64 µs, non-decreasing. x, y: (N,) uint16 px. p: (N,) bool, True = brighter.
    The arrays are read-only views. Raises TypeError on another dtype or unequal lengths; values
    are checked once per packet by `edgeperc.validate`.
    """

    stamp: Stamp
    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.bool_]
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        for name, dtype in (("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)):
            object.__setattr__(self, name, _read_only(name, getattr(self, name), dtype))
        if not self.t.shape == self.x.shape == self.y.shape == self.p.shape == (self.t.size,):
            raise TypeError("t, x, y and p must be one-dimensional and of one length")

    def __len__(self) -> int:
        return self.t.size

    def slice(self, start: int, stop: int, stamp: Stamp) -> Events:
        """Events [start, stop) by index, as views, under a stamp of their own."""
        return Events(
            stamp=stamp,
            t=self.t[start:stop],
            x=self.x[start:stop],
            y=self.y[start:stop],
            p=self.p[start:stop],
            width_px=self.width_px,
            height_px=self.height_px,
        )


def join(parts: Sequence[Events], stamp: Stamp) -> Events:
    """Put events that follow each other, from one camera, in one piece. parts: at least one."""
    if len(parts) == 1:
        return parts[0].slice(0, len(parts[0]), stamp)
    return Events(
        stamp=stamp,
        t=np.concatenate([part.t for part in parts]),
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        p=np.concatenate([part.p for part in parts]),
        width_px=parts[0].width_px,
        height_px=parts[0].height_px,
    )


Packet: TypeAlias = Frame | Events
"""What a sensor sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A frame and the events around the middle of its exposure, on one clock and the same pixels.

    stamp: the frame's; without one, source and a number of the frames' and, as start and end, the
    middle of the window. frame: None where no frame has come for long. events: of the window that
    the model wants, perhaps none. Made by `edgeperc.pairing`.
    """

    stamp: Stamp
    frame: Frame | None
    events: Events


ModelInput: TypeAlias = Frame | Events | Pair
"""What a model answers for."""


class Sensor(Protocol):
    """A source of packets: a camera, a recording or the digital twin.

    `packets` yields until the source ends (a recording) or `close` is called from another thread
    (a camera). Raises DeviceError when the device is lost, DataError where a recording breaks,
    after all that could be read was yielded.
    """

    def packets(self) -> Iterator[Packet]:
        """Yield packets in order of time."""

    def close(self) -> None:
        """Release the device; may be called twice and from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GazeRange:
    """The rectangle of gazes that a mirror can reach, corner to corner."""

    lowest: Gaze
    highest: Gaze

    def clip(self, gaze: Gaze) -> Gaze:
        """The nearest gaze within. Raises ValueError if a coordinate is not finite."""
        if not (math.isfinite(gaze.pan_rad) and math.isfinite(gaze.tilt_rad)):
            raise ValueError(f"gaze is {gaze}, must be finite")
        return Gaze(
            pan_rad=min(max(gaze.pan_rad, self.lowest.pan_rad), self.highest.pan_rad),
            tilt_rad=min(max(gaze.tilt_rad, self.lowest.tilt_rad), self.highest.tilt_rad),
        )


class Mirror(Protocol):
    """A galvano mirror that points the search camera. Its times are those of the run's clock.

    Used from one thread. `range` is what it can reach, `clipped` how often it was asked for more,
    `source` says in a few words whether `measured` is read back from the device or modelled.
    """

    range: GazeRange
    clipped: int
    source: str

    def aim(self, gaze: Gaze) -> Gaze:
        """Start to move; returns, at once, the gaze that was asked of the device, clipped.

        Raises ValueError if `gaze` is not finite, DeviceError if the mirror is lost or refuses.
        """

    def measured(self, time_ns: int | None = None) -> Gaze:
        """Where it points: now, or at a time since the last `aim`. Never what was wished for."""

    def settled_ns(self) -> int:
        """Time at which the last move is over, the mirror lying still."""

    def close(self) -> None:
        """Leave the mirror in a safe state; may be called twice and from any thread."""


def _read_only(name: str, values: Any, dtype: DTypeLike) -> NDArray[Any]:
    if not isinstance(values, np.ndarray) or values.dtype != dtype:
        found = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name}: {found}, expected an array of {np.dtype(dtype)}")
    view: NDArray[Any] = values.view()
    view.flags.writeable = False
    return view
