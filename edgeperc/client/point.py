"""A terminal client of tracking: point at things in a daemon's video and read where they go."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.client.client import connect
from edgeperc.client.connection import Access
from edgeperc.errors import ConfigError
from edgeperc.plain import about, content
from edgeperc.prompt import Prompt
from edgeperc.result import Instances

LINE_EVERY_S = 1.0


def point(
    places: Sequence[str],
    address: str,
    *,
    source: str = "",
    as_json: bool = False,
    duration_s: float | None = None,
    access: Access | None = None,
) -> None:
    """Follow what is pointed at until Ctrl-C, `duration_s` or the daemon's end; then it is dropped.

    places: "x,y" on a thing, or "left,upper,right,lower" around it; they become objects 1, 2, ...
    Prints a line a second, or with as_json one a picture. Raises ConfigError for a place that is
    none or is refused, DeviceError if the daemon cannot be reached.
    """
    prompts = [_prompt(place) for place in places]
    end_s = float("inf") if duration_s is None else time.monotonic() + duration_s
    next_s = 0.0
    mode = "queue" if as_json else "latest"
    with (
        connect(address, access=access) as client,
        client.track(source, mode=mode) as session,  # type: ignore[arg-type]
    ):
        for number, prompt in enumerate(prompts, start=1):
            session.prompt(number, prompt)
        try:
            for found in session:
                now_s = time.monotonic()
                if as_json:
                    print(msgspec.json.encode(about(found) | content(found)).decode(), flush=True)
                elif now_s >= next_s:
                    next_s = now_s + LINE_EVERY_S
                    print(_line(found), flush=True)
                if now_s >= end_s:
                    return
        except KeyboardInterrupt:
            pass


def _prompt(place: str) -> Prompt:
    try:
        numbers = np.array([float(part) for part in place.split(",")], np.float32)
    except ValueError:
        numbers = np.empty(0, np.float32)
    if len(numbers) == 2:
        return Prompt(points=numbers[None])
    if len(numbers) == 4:
        return Prompt(box=numbers)
    raise ConfigError(
        f"'{place}' is no place in a picture",
        hint="x,y is a point on the thing; left,upper,right,lower a box around it",
    )


def _line(found: Instances) -> str:
    said = [_object(found, index) for index in range(len(found.ids))]
    return f"{found.stamp.source} #{found.stamp.seq}: {'; '.join(said) or 'nothing'}"


def _object(found: Instances, index: int) -> str:
    number, box = int(found.ids[index]), _rounded(found.boxes[index])
    if not box.any():
        return f"{number} out of sight"
    edges = ",".join(str(edge) for edge in box.tolist())
    return f"{number} at {edges}, {masks.area(found.masks[index]):,} px"


def _rounded(box: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.rint(box).astype(np.int64)
