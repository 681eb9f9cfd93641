"""How long each layer takes at best on a device, and what it waits for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgeperc.errors import ConfigError
from edgeperc.offline.roofline.count import Counted, Layer, Operand
from edgeperc.offline.roofline.devices import Device

Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True)
class Bits:
    """In how many bits a network is kept and computed.

    weights, activations: of layers with weights; 0 means as in the file. Of other layers, attention
    products among them, nothing is quantized: they stay in the device's float.
    """

    name: str
    weights: int = 0
    activations: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """A layer's prediction. moved: bytes. compute_s, memory_s: at the two roofs."""

    layer: Layer
    precision: str
    moved: float
    compute_s: float
    memory_s: float
    launch_s: float

    @property
    def seconds(self) -> float:
        """At best."""
        return max(self.compute_s, self.memory_s) + self.launch_s

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.layer.ops / self.moved if self.moved else 0.0

    @property
    def bound(self) -> Bound:
        """What more of would make it faster."""
        if self.launch_s > max(self.compute_s, self.memory_s):
            return "launch"
        return "compute" if self.compute_s >= self.memory_s else "memory"


@dataclass(frozen=True)
class Prediction:
    """All layers of a graph on a device."""

    graph: Counted
    device: Device
    bits: Bits
    layers: tuple[Timed, ...]

    @property
    def seconds(self) -> float:
        """One layer after the other."""
        return sum(each.seconds for each in self.layers)

    def share(self, bound: Bound) -> float:
        """Share of the time in layers bound so."""
        spent = sum(each.seconds for each in self.layers if each.bound == bound)
        return spent / self.seconds if self.seconds else 0.0

    def bottleneck(self) -> str:
        """One sentence: what most of the time is waited for, and where."""
        if not self.layers:
            return "Nothing to compute."
        bound: Bound = max(("compute", "memory", "launch"), key=self.share)
        inside = [each for each in self.layers if each.bound == bound]
        longest = max(inside, key=lambda each: each.seconds)
        kinds: dict[str, float] = {}
        for each in inside:
            kind = each.layer.op.split("+")[0]
            kinds[kind] = kinds.get(kind, 0.0) + each.seconds
        kind = max(kinds, key=lambda name: kinds[name])
        waits = {
            "compute": "arithmetic",
            "memory": "memory bandwidth",
            "launch": "starting layers that do little",
        }[bound]
        return (
            f"The bottleneck is {waits}: {self.share(bound):.0%} of the predicted time waits for "
            f"it, {kinds[kind] / self.seconds:.0%} in {kind} layers; the longest of them is "
            f"{longest.layer.name} ({longest.seconds / self.seconds:.1%})."
        )

    def what_if(self) -> list[tuple[str, float]]:
        """What would be different -> predicted seconds."""
        device = self.device
        faster = replace(
            device, bandwidth=tuple((size, 2 * rate) for size, rate in device.bandwidth)
        )
        stronger = replace(
            device,
            ops_s={name: 2 * rate for name, rate in device.ops_s.items()},
            vector_ops_s=2 * device.vector_ops_s,
        )
        found = [
            ("twice the bandwidth", predict(self.graph, faster, self.bits).seconds),
            ("twice the arithmetic", predict(self.graph, stronger, self.bits).seconds),
        ]
        for name in ("fp32", "fp16", "w8a8", "w4a8"):
            if name != self.bits.name and (name != "fp16" or "fp16" in device.ops_s):
                found.append((name, predict(self.graph, device, bits_of(name)).seconds))
        return found


def bits_of(name: str) -> Bits:
    """`file`, `fp32`, `fp16`, or such as `w8a8`, `w4a16`. Raises ConfigError."""
    if name == "file":
        return Bits(name)
    if match := re.fullmatch(r"fp(32|16)", name):
        return Bits(name, int(match[1]), int(match[1]))
    match = re.fullmatch(r"w(\d+)a(\d+)", name)
    if not match or not (2 <= int(match[1]) <= 16 and 2 <= int(match[2]) <= 16):
        raise ConfigError(
            f"unknown bits '{name}'",
            hint="file, fp32, fp16, or weights and activations of 2 to 16 bits, such as w8a8",
        )
    return Bits(name, int(match[1]), int(match[2]))


def predict(graph: Counted, device: Device, bits: Bits) -> Prediction:
    """Predict each layer. Raises ConfigError for a precision that the device has no rate for."""
    return Prediction(
        graph, device, bits, tuple(_timed(layer, device, bits) for layer in graph.layers)
    )


def _timed(layer: Layer, device: Device, bits: Bits) -> Timed:
    precision = _precision(layer, device, bits)
    if precision not in device.ops_s:
        raise ConfigError(
            f"device '{device.key}' has no rate for {precision}",
            hint=f"it has {', '.join(device.ops_s)}",
        )
    moved = sum(_bytes(each, device, bits) for each in (*layer.reads, *layer.writes))
    return Timed(
        layer,
        precision,
        moved,
        2 * layer.macs / device.ops_s[precision] + layer.other / device.vector_ops_s,
        moved / device.bytes_s(moved),
        device.launch_s,
    )


def _precision(layer: Layer, device: Device, bits: Bits) -> str:
    """In what a layer multiplies: the wider of its two factors decides, and it is never 4 bits."""
    if not bits.weights:
        widest = layer.factor_bits
    elif layer.has_weights:
        widest = max(bits.weights, bits.activations)
    else:
        return "fp32" if bits.weights == 32 else device.float_precision
    return "int8" if widest <= 8 else "fp16" if widest <= 16 else "fp32"


def _bytes(operand: Operand, device: Device, bits: Bits) -> float:
    """Of a tensor in memory; integers of the graph, such as indices, stay as they are."""
    width = operand.bits
    if bits.weights and operand.real:
        whole = 32 if bits.weights == 32 else int(device.float_precision[2:])
        if operand.weight:
            width = bits.weights
        else:
            width = bits.activations if operand.quantizable else whole
        # 6 bits lie in a byte each; only 4 and 2 are packed.
        width = width if width in (2, 4) else 8 * math.ceil(width / 8)
    return operand.elements * width / 8


def worst(layers: Sequence[Timed], number: int) -> list[Timed]:
    """The longest, longest first."""
    return sorted(layers, key=lambda each: -each.seconds)[:number]
