"""Events to tensors: kernels for one packet, and the recipes by which networks were trained.

    grid = voxel_grid(events, bins=5)                        # any packet
    recipe = RECIPES["sltnet-ddd17"](346, 260, card.input)   # one network's input and output
    labels = recipe.labels_to_sensor(network(recipe(events)))
    pairs, counts = pair(frames, events, Rules())            # of whole streams, see edgeperc.pairs

Events outside the sensor are ignored by the kernels; `edgeperc.validate` reports them.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.jit import kernel
from edgeperc.packet import Events
from edgeperc.pairs import Rules, pair  # noqa: F401 - of this page, too
from edgeperc.result import UNKNOWN

Columns: TypeAlias = tuple[
    NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_]
]
"""t, x, y, p of some events, contiguous and read-only."""
Taps: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]
"""For each output pixel its lower and upper input pixel, and the upper one's share."""


def voxel_grid(
    events: Events, *, bins: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Spread each event's polarity (±1) over the two time bins around it.

    Bin 0 is the first event's time and bin `bins - 1` the last one's; simultaneous events all go
    to bin 0, so that the grid's sum is always the sum of polarities. out: (bins, H, W) to fill.
    Returns (bins, H, W) float32.
    """
    grid = _output(out, (bins, events.height_px, events.width_px), np.float32)
    _add_linear(_columns(events), grid)
    return grid


def event_count(events: Events, *, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
    """Count the events of each pixel, both polarities together; stops at 65,535.

    out: (H, W) to fill. Returns (H, W) uint16.
    """
    counts = _output(out, (events.height_px, events.width_px), np.uint16)
    _, x, y, _ = _columns(events)
    _count(x, y, counts)
    return counts


def time_surface(
    events: Events, *, tau_us: float, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Fade each pixel's latest event: exp(-(age in µs) / tau_us), 0 where there was none.

    Age counts back from the packet's last event. out: (H, W) to fill. Returns (H, W) float32.
    """
    surface = _output(out, (events.height_px, events.width_px), np.float32)
    _fade(_columns(events), float(tau_us), surface)
    return surface


class Recipe:
    """Turns events into one network's input, and its labels back into sensor pixels.

    The grid of the whole sensor is normalised over its nonzero cells (mean, standard deviation),
    resized to a canvas (bilinear, corners aligned), and cut or zero-padded to the network's size.
    A sensor of another size than the training one is resized by the same step. One recipe serves
    one pipeline: it owns its buffers.
    """

    ddof = 0
    """Subtracted from the count in the standard deviation: 1 makes it unbiased."""

    def __init__(self, sensor_width_px: int, sensor_height_px: int, spec: Input) -> None:
        self._sensor_px = (sensor_height_px, sensor_width_px)
        canvas_px, network_px = self._sizes(spec)
        self._rows = _Axis(sensor_height_px, canvas_px[0], network_px[0])
        self._columns = _Axis(sensor_width_px, canvas_px[1], network_px[1])
        self._grid = np.zeros((spec.bins, sensor_height_px, sensor_width_px), np.float32)
        self._input = np.zeros((spec.bins, *network_px), np.float32)
        self._labels = np.full(network_px[0] * network_px[1] + 1, UNKNOWN, np.uint8)
        self._label_at = self._label_index(self._rows.back, self._columns.back)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bins, height, width) of the network's input."""
        bins, height, width = self._input.shape
        return bins, height, width

    @property
    def taps(self) -> tuple[Taps, Taps]:
        """Of the rows and columns of the canvas that the network sees, for what lies beside."""
        return self._rows.taps, self._columns.taps

    def __call__(self, events: Events) -> NDArray[np.float32]:
        """Return the network's input, (bins, h, w) float32, in a buffer the next call reuses.

        No events give zeros. Raises ModelError if the sensor's size is not the recipe's.
        """
        if (events.height_px, events.width_px) != self._sensor_px:
            raise ModelError(
                f"events of a {events.width_px} × {events.height_px} px sensor reached a recipe "
                f"for {self._sensor_px[1]} × {self._sensor_px[0]} px"
            )
        self._fill(events, self._grid)
        mean_and_scale = _normalisation(self._grid, self.ddof)
        _resize_normalised(
            self._grid, mean_and_scale, self._rows.taps, self._columns.taps, self._input
        )
        view: NDArray[np.float32] = self._input.view()
        view.flags.writeable = False
        return view

    def labels_to_sensor(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring network labels (h, w) uint8 to sensor pixels (H, W), nearest; 255 = not seen."""
        self._labels[:-1] = labels.reshape(-1)
        return self._labels.take(self._label_at, mode="clip")

    def _sizes(self, spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
        """Canvas and network size, each (height, width) in px."""
        raise NotImplementedError

    def _fill(self, events: Events, grid: NDArray[np.float32]) -> None:
        voxel_grid(events, bins=grid.shape[0], out=grid)

    def _label_index(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.int64]:
        """(H, W) index into the flat labels; the last entry, 255, stands for everything outside.

        rows, columns: canvas coordinates in px, of each sensor pixel or of each row and column.
        """
        height, width = self._input.shape[1:]
        if rows.ndim == 1:
            rows = rows[:, None]
        row, column = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return np.where(inside, row * width + column, height * width)


class Ddd17Voxels(Recipe):
    """SLTNet on DDD17: canvas 260 × 352, of which the network sees rows 0..199.

    Source: longxianlei/SLTNet-v1.0 and the event code of ESS that it carries. Where that divides by
    a deviation of zero (all nonzero cells equal), only the mean is removed. Its dataset loader cuts
    the events with the window's last time stamp off before this step; the reference data in
    ../shared/data/golden keeps them, and so does this.
    """

    def _sizes(self, spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
        return (260, 352), (200, 352)


class DsecVoxels(Recipe):
    """SLTNet on DSEC-Semantic: canvas 480 × 640, of which the network sees rows 0..439.

    Source: longxianlei/SLTNet-v1.0 and the DSEC tools that it carries. rectify_map: (H, W, 2)
    float32, the x, y px that DSEC's calibration gives each sensor pixel; with it an event is
    spread over the four pixels around its rectified place. Coordinates are cut towards zero as
    published, so that at x in (-1, 0) the right neighbour's weight is negative.
    """

    ddof = 1

    def __init__(
        self,
        sensor_width_px: int,
        sensor_height_px: int,
        spec: Input,
        *,
        rectify_map: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(sensor_width_px, sensor_height_px, spec)
        self._rectify_map = rectify_map
        if rectify_map is not None:
            if rectify_map.shape != (sensor_height_px, sensor_width_px, 2):
                raise ModelError(
                    f"rectify_map has shape {rectify_map.shape}, "
                    f"expected ({sensor_height_px}, {sensor_width_px}, 2)"
                )
            x, y = rectify_map[..., 0].astype(np.float64), rectify_map[..., 1].astype(np.float64)
            self._label_at = self._label_index(self._rows.to_canvas(y), self._columns.to_canvas(x))

    def _sizes(self, spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
        return (480, 640), (440, 640)

    def _fill(self, events: Events, grid: NDArray[np.float32]) -> None:
        if self._rectify_map is None:
            super()._fill(events, grid)  # whole pixels: trilinear is linear in time
        else:
            _add_trilinear(_columns(events), self._rectify_map, grid)


class VoxelGrid(Recipe):
    """The sensor of the card, zero-padded right and below to multiples of 8."""

    def _sizes(self, spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
        padded = (math.ceil(spec.height_px / 8) * 8, math.ceil(spec.width_px / 8) * 8)
        return (spec.height_px, spec.width_px), padded


RECIPES: dict[str, type[Recipe]] = {
    "sltnet-ddd17": Ddd17Voxels,
    "sltnet-dsec": DsecVoxels,
    "voxel-grid": VoxelGrid,
}
"""`[input] represent` of a model card -> recipe(sensor_width_px, sensor_height_px, input)."""


class _Axis:
    """One axis of an align-corners resize from `sensor` to `canvas` px, cut or padded to `network`.

    taps: of each network pixel inside the canvas, in float32 as torch computes them. back: the
    canvas coordinate of each sensor pixel.
    """

    def __init__(self, sensor: int, canvas: int, network: int) -> None:
        self._scale_back = (canvas - 1) / max(sensor - 1, 1)
        scale = np.float32(sensor - 1) / np.float32(max(canvas - 1, 1))
        place = scale * np.arange(min(canvas, network), dtype=np.float32)
        lower = np.minimum(place.astype(np.uint32), np.uint32(sensor - 1))
        upper = np.minimum(lower + np.uint32(1), np.uint32(sensor - 1))
        share: NDArray[np.float32] = place - lower.astype(np.float32)
        self.taps: Taps = lower, upper, share
        self.back = self.to_canvas(np.arange(sensor, dtype=np.float64))

    def to_canvas(self, sensor: NDArray[np.float64]) -> NDArray[np.float64]:
        return sensor * self._scale_back


def _columns(events: Events) -> Columns:
    """One layout for the kernels, so that one compilation serves every driver."""
    t, x, y, p = map(np.ascontiguousarray, (events.t, events.x, events.y, events.p))
    for column in (t, x, y, p):
        column.flags.writeable = False
    return t, x, y, p


def _output(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """`out` if it fits, or a new array; its content does not matter."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected {np.dtype(dtype)} {shape}")
    return out


@kernel()
def _add_linear(columns: Columns, grid: NDArray[np.float32]) -> None:
    t, x, y, p = columns
    bins, height, width = grid.shape
    flat = grid.reshape(-1)
    flat[:] = 0
    last_bin = bins - 1
    span_us = np.float64(max(t[-1] - t[0], 1)) if t.size else 1.0
    # Unsigned indices spare numba's test for negative ones.
    plane, line = np.uint64(height * width), np.uint64(width)
    for i in range(t.size):
        # Divided last, as published: a factor last_bin / span_us would miss exact bin times.
        place = np.float64(last_bin * (t[i] - t[0])) / span_us
        if x[i] >= width or y[i] >= height or not 0.0 <= place <= last_bin:
            continue
        lower = np.int64(place)
        sign = np.float32(np.int32(p[i]) * 2 - 1)
        later = sign * np.float32(place - lower)
        cell = np.uint64(lower) * plane + np.uint64(y[i]) * line + np.uint64(x[i])
        flat[cell] += sign - later
        if later != 0:
            flat[cell + plane] += later


@kernel()
def _add_trilinear(
    columns: Columns, rectify_map: NDArray[np.float32], grid: NDArray[np.float32]
) -> None:
    t, x, y, p = columns
    bins, height, width = grid.shape
    map_height, map_width = rectify_map.shape[:2]
    grid[:] = 0
    span_us = max(t[-1] - t[0], 1) if t.size else 1
    for i in range(t.size):
        if x[i] >= map_width or y[i] >= map_height or t[i] < t[0]:
            continue
        place = (bins - 1) * (t[i] - t[0]) / span_us
        column_px, row_px = rectify_map[y[i], x[i], 0], rectify_map[y[i], x[i], 1]
        sign = 1.0 if p[i] else -1.0
        for row in range(np.int64(row_px), np.int64(row_px) + 2):
            for column in range(np.int64(column_px), np.int64(column_px) + 2):
                if not (0 <= row < height and 0 <= column < width):
                    continue
                share = sign * (1 - abs(row - row_px)) * (1 - abs(column - column_px))
                for b in range(np.int64(place), min(np.int64(place) + 2, bins)):
                    grid[b, row, column] += np.float32(share * (1 - abs(b - place)))


@kernel()
def _count(x: NDArray[np.uint16], y: NDArray[np.uint16], counts: NDArray[np.uint16]) -> None:
    height, width = counts.shape
    counts[:] = 0
    for i in range(x.size):
        if x[i] < width and y[i] < height:
            before = counts[y[i], x[i]]
            counts[y[i], x[i]] = before + (before < 65535)


@kernel()
def _fade(columns: Columns, tau_us: float, surface: NDArray[np.float32]) -> None:
    t, x, y, _ = columns
    height, width = surface.shape
    surface[:] = 0
    for i in range(t.size - 1, -1, -1):  # backwards: the first event met at a pixel is its latest
        if x[i] < width and y[i] < height and surface[y[i], x[i]] == 0:
            surface[y[i], x[i]] = math.exp((t[i] - t[-1]) / tau_us)


@kernel(fastmath=True)
def _normalisation(grid: NDArray[np.float32], ddof: int) -> tuple[np.float32, np.float32]:
    """Mean and 1 / standard deviation of the nonzero cells; (mean, 1) where they are all equal."""
    flat = grid.reshape(-1)
    count, total, squares = 0, 0.0, 0.0
    for i in range(flat.size):
        value = np.float64(flat[i])
        count += value != 0
        total += value
        squares += value * value
    if count <= ddof:
        return np.float32(0), np.float32(1)
    mean = total / count
    variance = (squares - total * mean) / (count - ddof)
    # Below this the difference holds nothing but rounding.
    scale = 1.0 / math.sqrt(variance) if variance > 1e-12 * mean * mean else 1.0
    return np.float32(mean), np.float32(scale)


@kernel(fastmath={"contract"})
def _normalise_line(
    cells: NDArray[np.float32],
    mean: np.float32,
    scale: np.float32,
    line: NDArray[np.float32],
) -> None:
    zero = np.float32(0)
    for j in range(cells.size):
        value = (cells[j] - mean) * scale
        line[j] = value if cells[j] != zero else zero


@kernel(fastmath={"contract"})
def _resize_normalised(
    grid: NDArray[np.float32],
    mean_and_scale: tuple[np.float32, np.float32],
    rows: Taps,
    columns: Taps,
    out: NDArray[np.float32],
) -> None:
    """Normalise the nonzero cells and resize, line by line; `out` beyond the taps is kept."""
    mean, scale = mean_and_scale
    row0, row1, row_share = rows
    column0, column1, column_share = columns
    line = np.empty(grid.shape[2], np.float32)
    below = np.empty(grid.shape[2], np.float32)
    for b in range(grid.shape[0]):
        for i in range(row0.size):
            _normalise_line(grid[b, row0[i]], mean, scale, line)
            if row_share[i] != 0:
                _normalise_line(grid[b, row1[i]], mean, scale, below)
                for j in range(line.size):
                    line[j] += row_share[i] * (below[j] - line[j])
            cells = out[b, i]
            for j in range(column0.size):
                left, right = line[column0[j]], line[column1[j]]
                cells[j] = left + column_share[j] * (right - left)
