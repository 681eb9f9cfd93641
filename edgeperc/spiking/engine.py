"""SLTNet on the CPU as what it is: a network whose neurons say one bit.

Its layers are sums of table rows that spikes select; only gates and the two upsamplings of
real-valued maps multiply. In the stem, at full resolution, pixels that see no event keep the answer
that an empty window gives them, which is the same to the bit as computing it. Potentials are
float32 and thresholds exact, so labels differ from another float32 engine's only where the order of
a sum decides.

The weights come from `edgeperc.offline.spiking_export`; layers and names follow the folded network.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ModelError
from edgeperc.spiking import potentials as po
from edgeperc.spiking import spikes as sp
from edgeperc.spiking.lanes import LANES
from edgeperc.spiking.spikes import Convolution, Mask, Potentials, Spikes

Arrays = Mapping[str, NDArray[Any]]

Gate: TypeAlias = NDArray[np.float32] | np.float32
Rows: TypeAlias = tuple[int, int]

FORMAT = 1
"""Raised whenever the arrays of a file change their meaning."""

_WORTH_WAKING = 20_000
"""Taps × pixels × words of input and output that one thread sums in about 0.2 ms."""


class SpikingEngine:
    """Labels of a network input, computed spike by spike.

    threads: cores for the full-resolution layers. `labels` may be called from any thread, by one at
    a time. Raises ModelError if the file is missing or was written by another version.
    """

    name = "spiking"
    provider = "CPU"
    precision = "fp32"

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        net = _read(path)
        self._size = int(net["size"][0]), int(net["size"][1])
        height, width = self._size
        self._workers = workers = _Workers(threads)
        self._stem = _Stem(net, height, width, workers)
        self._stages = [_Stage(_part(net, f"stage{n}"), workers) for n in (1, 2, 3)]
        self._transformers = [_Transformer(part, workers) for part in _parts(net, "transformers")]
        self._channels = net["stage3.fire.scale"].size
        self._skips = [_Skip(_part(net, f"skip{n}"), workers) for n in (1, 2, 3)]
        self._ups = [_Up(_part(net, f"up{n}"), workers) for n in (1, 2, 3)]
        self._attention = _dense(net["attention.weight"], net["attention.bias"])
        self._head = _neurons(_part(net, "head"))
        self._taps = po.axis((height + 1) // 2, height), po.axis((width + 1) // 2, width)
        self._label_of = _label_table(net["classifier.weight"])

    def labels(self, tensor: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """tensor: (bins, h, w) float32 network input. Returns (h, w) uint8 class indices.

        Raises ModelError if (h, w) is not the size that the network was exported for.
        """
        if tensor.shape != (self._stem.bins, *self._size):
            raise ModelError(
                f"network input is {tensor.shape}, expected {(self._stem.bins, *self._size)}"
            )
        o0 = self._stem(np.ascontiguousarray(tensor))
        o1 = self._stages[0](o0)
        o2 = self._stages[1](o1)
        o3 = self._stages[2](o2)
        y = _potentials(o3, self._channels)
        for transformer in self._transformers:
            y = transformer(y)
        for up, skip, seen in zip(self._ups, reversed(self._skips), (o3, o2, o1), strict=True):
            y = up(y, skip, seen)
        return self._classified(y)

    def _classified(self, y: Potentials) -> NDArray[np.uint8]:
        labels = np.empty(self._size, np.uint8)
        share = self._workers.share
        share(
            y.shape[0],
            lambda rows: po.attend(y, self._attention, self._head, rows),
            work=y.size // 8,
        )
        share(
            labels.shape[0],
            lambda rows: po.classify(y, self._taps, self._label_of, rows, labels),
            work=labels.size,
        )
        return labels


class _Workers:
    """Runs a kernel over bands of rows, one for each thread; kernels release the interpreter lock.

    The calling thread takes a band itself. Small layers are not shared: waking a thread costs what
    the work of `_WORTH_WAKING` does.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "spiking") if threads > 1 else None

    def share(self, height: int, kernel: Callable[[Rows], None], *, work: int) -> None:
        """Call `kernel((first, last))` on equal bands of rows. work: taps, pixels and words."""
        cuts = [height * i // self._threads for i in range(self._threads + 1)]
        self._run(cuts if work > _WORTH_WAKING else [0, height], kernel)

    def share_active(self, active: Mask, kernel: Callable[[Rows], None]) -> None:
        """Call `kernel((first, last))` on bands with equal numbers of active pixels, (H, W)."""
        done = np.cumsum(np.count_nonzero(active, axis=1))
        shares = done[-1] * np.arange(1, self._threads) // self._threads
        cuts = [0, *np.searchsorted(done, shares).tolist(), active.shape[0]]
        self._run(cuts if 9 * done[-1] > _WORTH_WAKING else [0, active.shape[0]], kernel)

    def _run(self, cuts: list[int], kernel: Callable[[Rows], None]) -> None:
        first, *others = itertools.pairwise(cuts)
        bands = [self._pool.submit(kernel, rows) for rows in others] if self._pool else []
        kernel(first)
        for band in bands:
            band.result()


class _Stem:
    """Three convolutions at full, full and half size, computed where their inputs are not at rest.

    At rest is what an empty window gives; `_rest` holds those spikes for each layer.
    """

    def __init__(self, net: Arrays, height: int, width: int, workers: _Workers) -> None:
        self._workers = workers
        weight = net["stem.0.weight"]
        self.bins = weight.shape[1]
        self._first = _row_by_row(weight, net["stem.0.bias"])
        self._later = (
            _convolution(_part(net, "stem.1")),
            _convolution(_part(net, "stem.2"), stride=2),
        )
        full, half = (height, width), ((height + 1) // 2, (width + 1) // 2)
        # A border of one pixel on each side, and room to read on to a multiple of four.
        self._pixels = np.zeros((height, (width + 2) * self.bins + 3), np.float32)
        self._near = np.zeros(full, np.uint8)
        self._changed = np.ones(full, np.uint8)
        self._active: list[Mask] = [np.ones(size, np.uint8) for size in (full, full, half)]
        self._spikes: list[Spikes] = [
            np.zeros((*size, sp.words(bias.size)), np.uint32)
            for size, bias in (
                (full, self._first[1]),
                (full, self._later[0].bias),
                (half, self._later[1].bias),
            )
        ]
        for layer in range(3):
            self._fire(layer)
        self._rest = [spikes.copy() for spikes in self._spikes]

    def __call__(self, grid: NDArray[np.float32]) -> Spikes:
        self._workers.share(
            grid.shape[1],
            lambda rows: sp.gather(grid, rows, self._near, self._pixels),
            work=grid.size // 8,
        )
        for layer, (spikes, rest) in enumerate(zip(self._spikes, self._rest, strict=True)):
            self._find_active(layer)
            np.copyto(spikes, rest)
            self._fire(layer)
        return self._spikes[2]

    def _find_active(self, layer: int) -> None:
        """Where the layer sees anything that is not at rest."""
        if layer == 0:
            sp.spread(self._near, 0, 1, self._active[0])
            return
        sp.changed(self._spikes[layer - 1], self._rest[layer - 1], self._changed)
        sp.spread(self._changed, 1, self._later[layer - 1].stride, self._active[layer])

    def _fire(self, layer: int) -> None:
        """Compute the layer's spikes where it is active."""
        active, out = self._active[layer], self._spikes[layer]
        if layer == 0:
            self._workers.share_active(
                active,
                lambda rows: sp.fire_on_pixels(
                    self._pixels, self._near, self._first, active, rows, out
                ),
            )
            return
        seen, conv = self._spikes[layer - 1], self._later[layer - 1]
        self._workers.share_active(
            active, lambda rows: sp.convolve_and_fire(seen, conv, active, rows, out)
        )


class _Stage:
    """Half the size: a strided convolution beside a pool, blocks, then neurons."""

    def __init__(self, part: Arrays, workers: _Workers) -> None:
        self._workers = workers
        self._conv = _convolution(_part(part, "conv"), stride=2)
        self._learnt = part["conv.weight"].shape[0]
        self._pooled = sp.channels(part["pooled"], sp.words(part["conv.weight"].shape[1]))
        self._blocks = [_Lmsb(block, workers) for block in _parts(part, "blocks")]
        self._neurons = _neurons(_part(part, "fire"))

    def __call__(self, spikes: Spikes) -> Spikes:
        size = _strided(spikes, self._conv)
        x = np.zeros((*size, self._neurons[0].size), np.float32)
        _convolve_into(x, spikes, self._conv, self._workers)
        if self._pooled.bits.size:
            even = spikes[: size[0] * 2, : size[1] * 2]
            pooled = even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]
            sp.add_spikes(pooled, self._pooled, self._learnt, x)
        for block in self._blocks:
            block(x)
        return _fire(x, self._neurons)


class _Lmsb:
    """Multi-scale block: adds `expand(fire(y + near(y) + far(y)))` to potentials, in place."""

    def __init__(self, part: Arrays, workers: _Workers) -> None:
        self._workers = workers
        self._squeeze = _neurons(_part(part, "fire"))
        self._tall = _convolution(_part(part, "tall"))
        self._wide = _convolution(_part(part, "wide"))
        self._near, self._far = (_branch(_part(part, name)) for name in ("near", "far"))
        self._mix = part["mix.scale"], part["mix.shift"]
        self._expand = sp.convolution(part["expand.weight"])

    def __call__(self, x: Potentials) -> None:
        y = _convolve_and_fire(_fire(x, self._squeeze), self._tall, self._workers)
        y = _convolve_and_fire(y, self._wide, self._workers)
        near, near_gate = self._near(y)
        far, far_gate = self._far(y)
        mixed = np.empty_like(y)
        sp.choose(y, near, far, self._truth(near_gate, far_gate), mixed)
        x += _convolve(mixed, self._expand, self._workers)

    def _truth(self, near: Gate, far: Gate) -> Spikes:
        """What y + near gate * near + far gate * far fires for each of the eight cases."""
        scale, shift = self._mix
        case = np.arange(8)[:, None]
        total = (case & 1) + (case >> 1 & 1) * near + (case >> 2) * far
        return _bits(scale * total + shift > 0)


def _branch(part: Arrays) -> Callable[[Spikes], tuple[Spikes, Gate]]:
    """A branch of an LMSB; one that was pruned away is always silent."""
    return _Branch(part) if part else lambda y: (np.zeros_like(y), np.float32(0))


class _Branch:
    """Two depthwise layers of neurons and the gate by which each channel of them counts."""

    def __init__(self, part: Arrays) -> None:
        self._dilation = int(part["dilation"])
        self._tall = _depthwise_truth(part["tall.weight"], part["tall.bias"])
        self._wide = _depthwise_truth(part["wide.weight"], part["wide.bias"])
        self._gate = part["gate"]
        self._channels = part["tall.weight"].shape[0]

    def __call__(self, y: Spikes) -> tuple[Spikes, Gate]:
        tall, wide = np.empty_like(y), np.empty_like(y)
        sp.choose_along(y, (self._dilation, 0), self._tall, tall)
        sp.choose_along(tall, (0, self._dilation), self._wide, wide)
        means = np.zeros(self._channels + 2, np.float32)  # a silent channel on each side
        means[1:-1] = _channel_means(wide, self._channels)
        before, here, after = self._gate
        gate = before * means[:-2] + here * means[1:-1] + after * means[2:]
        return wide, _sigmoid(gate)


class _Transformer:
    """Spike-driven attention and a two-layer perceptron, both added to the potentials."""

    def __init__(self, part: Arrays, workers: _Workers) -> None:
        self._workers = workers
        self._fire1 = _neurons(_part(part, "fire1"))
        # Each of q, k and v starts a word of its own, so that they meet bit by bit.
        weights = np.split(part["qkv.weight"], 3)
        width = weights[0].shape[0]
        self._words = sp.words(width)
        fill = self._words * sp.WORD - width
        self._qkv = sp.convolution(
            np.concatenate([np.pad(w, ((0, fill), (0, 0), (0, 0), (0, 0))) for w in weights]),
            np.concatenate([np.pad(b, (0, fill)) for b in np.split(part["qkv.bias"], 3)]),
        )
        self._project = _convolution(_part(part, "project"))
        self._fire2 = _neurons(_part(part, "fire2"))
        self._fc1 = _convolution(_part(part, "fc1"))
        self._fc2 = _convolution(_part(part, "fc2"))

    def __call__(self, x: Potentials) -> Potentials:
        qkv = _convolve_and_fire(_fire(x, self._fire1), self._qkv, self._workers)
        n = self._words
        q, k, v = qkv[..., :n], qkv[..., n : 2 * n], qkv[..., 2 * n : 3 * n]
        kept = q & np.bitwise_or.reduce(k & v, axis=(0, 1))
        x += _convolve(kept, self._project, self._workers)
        hidden = _convolve_and_fire(_fire(x, self._fire2), self._fc1, self._workers)
        x += _convolve(hidden, self._fc2, self._workers)
        return x


class _Skip:
    """Two layers of neurons and a gated mix of their spikes, added to a decoder's potentials."""

    def __init__(self, part: Arrays, workers: _Workers) -> None:
        self._workers = workers
        self._tall = _convolution(_part(part, "tall"))
        self._wide = _convolution(_part(part, "wide"))
        self._channels = part["wide.weight"].shape[0]
        self._mix, _ = _dense(part["mix.weight"], np.zeros(self._channels))
        self._squeeze, self._excite = _part(part, "squeeze"), _part(part, "excite")
        self._pixel = part["pixel.weight"][0].astype(np.float32), float(part["pixel.bias"][0])

    def add_to(self, y: Potentials, seen: Spikes) -> None:
        """Add this skip of the encoder's spikes to y, (H, W, C)."""
        spikes = _convolve_and_fire(seen, self._tall, self._workers)
        spikes = _convolve_and_fire(spikes, self._wide, self._workers)
        gate = np.empty(spikes.shape[:2], np.float32)
        sp.pixel_gate(spikes, self._channels, *self._pixel, gate)
        po.add_enhanced(spikes, self._channel_gate(spikes), gate, self._mix, y)

    def _channel_gate(self, spikes: Spikes) -> NDArray[np.float32]:
        if not self._squeeze:
            return np.full(self._mix.shape[0], 0.5, np.float32)
        means = _channel_means(spikes, self._channels)
        squeezed = self._squeeze["weight"][:, :, 0, 0] @ means + self._squeeze["bias"] > 0
        gate = _sigmoid(self._excite["weight"][:, :, 0, 0] @ squeezed.astype(np.float32))
        return np.pad(gate, (0, self._mix.shape[0] - gate.size))


class _Up:
    """Twice the size: a block or none, plus the skip, through a transposed convolution."""

    def __init__(self, part: Arrays, workers: _Workers) -> None:
        self._workers = workers
        blocks = _part(part, "block")
        self._block = _Lmsb(blocks, workers) if blocks else None
        weight = part["conv.weight"].transpose(1, 0, 2, 3)
        self._conv = _dense(weight, part["conv.bias"])
        self._fires = bool(part["fires"])

    def __call__(self, x: Potentials, skip: _Skip, seen: Spikes) -> Potentials:
        if self._block is not None:
            self._block(x)
        if x.shape[:2] != seen.shape[:2]:
            x = _resized(x, *seen.shape[:2])
        skip.add_to(x, seen)
        out = np.empty((2 * x.shape[0], 2 * x.shape[1], self._conv[1].size), np.float32)
        self._workers.share(
            out.shape[0], lambda rows: po.convolve_up(x, self._conv, rows, out), work=out.size // 8
        )
        if self._fires:
            np.greater(out, 0, out=out)
        return out


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if arrays.get("format", -1) != FORMAT:
        raise ModelError(f"{path}: not of format {FORMAT}", hint="export the model again")
    return arrays


def _part(arrays: Arrays, name: str) -> Arrays:
    """The arrays below `name`."""
    start = len(name) + 1
    return {key[start:]: value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _parts(arrays: Arrays, name: str) -> list[Arrays]:
    """The parts `name`.0, `name`.1, … as far as they go."""
    count = len({key.split(".")[1] for key in arrays if key.startswith(f"{name}.")})
    return [_part(arrays, f"{name}.{i}") for i in range(count)]


def _convolution(part: Arrays, stride: int = 1) -> Convolution:
    return sp.convolution(part["weight"], part.get("bias"), stride=stride)


def _dense(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[Potentials, Potentials]:
    """Weight (out, in, kh, kw) as (kh * kw * in, out) beside its bias, all channels padded."""
    outputs, inputs, height, width = weight.shape
    table = np.zeros((height, width, sp.padded(inputs), sp.padded(outputs)), np.float32)
    table[:, :, :inputs, :outputs] = weight.transpose(2, 3, 1, 0)
    biases = np.zeros(table.shape[-1], np.float32)
    biases[:outputs] = bias
    return table.reshape(-1, table.shape[-1]), biases


def _row_by_row(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[Potentials, Potentials]:
    """As `_dense`, where the inputs of a row of taps lie side by side and are padded together."""
    outputs, inputs, height, width = weight.shape
    lines = weight.transpose(0, 3, 1, 2).reshape(outputs, width * inputs, height, 1)
    fill = -lines.shape[1] % 4
    table, biases = _dense(lines, bias)
    kept = table.reshape(height, -1, biases.size)[:, : width * inputs + fill]
    return np.ascontiguousarray(kept).reshape(-1, biases.size), biases


def _neurons(part: Arrays) -> tuple[Potentials, Potentials]:
    """Scale and shift per channel, padded with neurons that never fire."""
    fill = sp.padded(part["scale"].size) - part["scale"].size
    scale, shift = (np.pad(part[name], (0, fill)) for name in ("scale", "shift"))
    return scale.astype(np.float32), shift.astype(np.float32)


def _convolve(spikes: Spikes, conv: Convolution, workers: _Workers) -> Potentials:
    out = np.empty((*_strided(spikes, conv), conv.channels), np.float32)
    _convolve_into(out, spikes, conv, workers)
    return out


def _convolve_into(out: Potentials, spikes: Spikes, conv: Convolution, workers: _Workers) -> None:
    workers.share(
        out.shape[0],
        lambda rows: sp.convolve(spikes, conv, rows, out),
        work=_work(spikes, conv),
    )


def _convolve_and_fire(spikes: Spikes, conv: Convolution, workers: _Workers) -> Spikes:
    height, width = _strided(spikes, conv)
    out = np.empty((height, width, sp.words(conv.bias.size)), np.uint32)
    everywhere = np.ones((height, width), np.uint8)
    workers.share(
        height,
        lambda rows: sp.convolve_and_fire(spikes, conv, everywhere, rows, out),
        work=_work(spikes, conv),
    )
    return out


def _work(spikes: Spikes, conv: Convolution) -> int:
    """Taps × pixels × words of input and output."""
    height, width = _strided(spikes, conv)
    taps = conv.height * conv.width * spikes.shape[2]
    return int(height * width * taps * sp.words(conv.bias.size))


def _strided(spikes: Spikes, conv: Convolution) -> tuple[int, int]:
    height, width = spikes.shape[:2]
    return -(-height // conv.stride), -(-width // conv.stride)


def _fire(potentials: Potentials, neurons: tuple[Potentials, Potentials]) -> Spikes:
    out = np.empty((*potentials.shape[:2], sp.words(potentials.shape[2])), np.uint32)
    sp.fire(potentials, *neurons, out)
    return out


def _potentials(spikes: Spikes, channels: int) -> Potentials:
    """Spikes as 0.0 and 1.0, for residual sums."""
    out = np.zeros((*spikes.shape[:2], sp.padded(channels)), np.float32)
    sp.add_spikes(spikes, sp.channels(np.arange(channels), spikes.shape[2]), 0, out)
    return out


def _resized(potentials: Potentials, height: int, width: int) -> Potentials:
    out = np.empty((height, width, potentials.shape[2]), np.float32)
    rows, columns = po.axis(potentials.shape[0], height), po.axis(potentials.shape[1], width)
    po.resize(potentials, rows, columns, out)
    return out


def _channel_means(spikes: Spikes, channels: int) -> NDArray[np.float32]:
    counts = np.empty(spikes.shape[2] * sp.WORD, np.int64)
    sp.count_spikes(spikes, counts)
    means: NDArray[np.float32] = counts[:channels] / np.float32(spikes.shape[0] * spikes.shape[1])
    return means.astype(np.float32)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def _bits(fired: NDArray[np.bool_]) -> Spikes:
    """(..., C) bool as (..., words) uint32."""
    *shape, channels = fired.shape
    filled = np.zeros((*shape, sp.words(channels) * sp.WORD), np.bool_)
    filled[..., :channels] = fired
    packed = np.packbits(filled, axis=-1, bitorder="little")
    return packed.view(np.uint32)


def _depthwise_truth(weight: NDArray[Any], bias: NDArray[Any]) -> Spikes:
    """(8, words): whether each channel fires for each pattern of its three taps."""
    taps = weight.reshape(-1, 3).T
    case = (np.arange(8)[:, None] >> np.arange(3)) & 1
    return _bits(case @ taps + bias > 0)


def _label_table(weight: NDArray[Any]) -> NDArray[np.uint8]:
    """(65536,) label of each pattern of up to 16 spikes: the class of the largest logit."""
    channels = weight.shape[1]
    if channels > LANES:
        raise ModelError(f"{channels} channels before the classifier, the most is {LANES}")
    patterns = (np.arange(1 << LANES)[:, None] >> np.arange(channels)) & 1
    logits = patterns @ weight[:, :, 0, 0].T.astype(np.float64)
    labels: NDArray[np.uint8] = logits.argmax(1).astype(np.uint8)
    return labels
