"""A model's graphs on a device: counted, predicted, on demand measured; as table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from rich.markup import escape
from rich.table import Table

from edgeperc import places
from edgeperc.bench import machine
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.roofline import calibrate, formulas
from edgeperc.offline.roofline.count import count
from edgeperc.offline.roofline.devices import HERE, Device, device
from edgeperc.offline.roofline.graph import shaped, takes
from edgeperc.offline.roofline.measure import Measured, measure
from edgeperc.offline.roofline.predict import Prediction, Timed, bits_of, predict, worst


@dataclass(frozen=True)
class GraphReport:
    """One graph. measured, spike_rate: None unless asked for."""

    name: str
    prediction: Prediction
    measured: Measured | None
    spike_rate: float | None

    @property
    def spike_macs(self) -> int:
        """Multiply-adds of layers whose inputs are spikes."""
        return sum(each.macs for each in self.prediction.graph.layers if each.spikes)

    def sentences(self) -> list[str]:
        """What the table says, in words."""
        prediction = self.prediction
        now_s = prediction.seconds
        changes = ", ".join(
            f"{what} {then_s * 1e3:.3g} ms ({now_s / then_s:.2f}x)"
            for what, then_s in prediction.what_if()
        )
        found = [prediction.bottleneck(), f"What if: {changes}."]
        if self.spike_rate is not None:
            events = formulas.accumulates(self.spike_macs, self.spike_rate)
            dense = prediction.graph.macs - self.spike_macs
            found.append(
                f"Spikes: {self.spike_macs / 1e6:,.1f} M of {prediction.graph.macs / 1e6:,.1f} M "
                f"multiply-adds have inputs of 0 or 1; at a firing rate of {self.spike_rate:g} an "
                f"event-driven engine does {events / 1e6:,.1f} M additions and "
                f"{dense / 1e6:,.1f} M multiply-adds. The prediction is for the dense graph, which "
                "skips nothing."
            )
        if self.measured:
            ratio = self.measured.total / now_s
            found.append(
                f"Measured: {self.measured.total * 1e3:.3g} ms, {ratio:.2f} of the prediction; "
                f"{self.measured.other * 1e3:.3g} ms of it in nodes that the runtime has made and "
                "that no layer's name tells."
            )
            if machine.busy(self.measured.load):
                found.append(
                    f"The machine was busy (load {self.measured.load:.1f}): measure again when it "
                    "is quiet."
                )
        if prediction.graph.guessed:
            found.append(
                f"Taken for one operation an element: {', '.join(prediction.graph.guessed)}."
            )
        return found

    def table(self, number: int) -> Table:
        """The longest layers, and the sum of all."""
        prediction = self.prediction
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        table.title = escape(f"{self.name} on {prediction.device.name}, {prediction.bits.name}")
        heads = ["M MAC", "M other", "MB", "op/byte", "bound", "in", "predicted ms"]
        if self.spike_rate is not None:
            heads.insert(1, "M adds")
        if self.measured:
            heads.append("measured ms")
        table.add_column("layer", overflow="ellipsis", min_width=12)
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for each in worst(prediction.layers, number):
            table.add_row(escape(_tail(each.layer.name)), *self._cells(each))
        layers = prediction.layers
        total = [f"{prediction.graph.macs / 1e6:,.2f}"]
        if self.spike_rate is not None:
            events = formulas.accumulates(self.spike_macs, self.spike_rate)
            total.append(f"{events / 1e6:,.2f}")
        moved = sum(each.moved for each in layers)
        total += [
            f"{sum(each.layer.other for each in layers) / 1e6:,.2f}",
            f"{moved / 1e6:,.2f}",
            f"{sum(each.layer.ops for each in layers) / max(moved, 1):.1f}",
            "",
            "",
            f"{prediction.seconds * 1e3:.3f}",
        ]
        if self.measured:
            total.append(f"{self.measured.total * 1e3:.3f}")
        table.add_row(f"all {len(layers)} layers", *total, style="bold")
        return table

    def as_json(self) -> dict[str, Any]:
        """Every layer in the graph's order; times in ms."""
        prediction = self.prediction
        return {
            "graph": self.name,
            "predicted_ms": prediction.seconds * 1e3,
            "measured_ms": self.measured.total * 1e3 if self.measured else None,
            "measured_in_no_layer_ms": self.measured.other * 1e3 if self.measured else None,
            "measured_at_load": self.measured.load if self.measured else None,
            "macs": prediction.graph.macs,
            "other_operations": sum(each.layer.other for each in prediction.layers),
            "moved_bytes": sum(each.moved for each in prediction.layers),
            "spike_macs": self.spike_macs if self.spike_rate is not None else None,
            "spike_rate": self.spike_rate,
            "share": {b: prediction.share(b) for b in ("compute", "memory", "launch")},
            "bottleneck": prediction.bottleneck(),
            "what_if_ms": {what: then * 1e3 for what, then in prediction.what_if()},
            "taken_for_one_operation": list(prediction.graph.guessed),
            "layers": [self._layer_json(each) for each in prediction.layers],
        }

    def _cells(self, each: Timed) -> list[str]:
        cells = [f"{each.layer.macs / 1e6:,.2f}"]
        if self.spike_rate is not None:
            events = formulas.accumulates(each.layer.macs, self.spike_rate)
            cells.append(f"{events / 1e6:,.2f}" if each.layer.spikes else "")
        cells += [
            f"{each.layer.other / 1e6:,.2f}",
            f"{each.moved / 1e6:,.2f}",
            f"{each.intensity:.1f}",
            each.bound,
            each.precision if each.layer.macs else "",
            f"{each.seconds * 1e3:.3f}",
        ]
        if self.measured:
            seconds = self.measured.layers.get(each.layer.name)
            cells.append("" if seconds is None else f"{seconds * 1e3:.3f}")
        return cells

    def _layer_json(self, each: Timed) -> dict[str, Any]:
        seconds = self.measured.layers.get(each.layer.name) if self.measured else None
        return {
            "name": each.layer.name,
            "operators": each.layer.op,
            "macs": each.layer.macs,
            "other_operations": each.layer.other,
            "spikes": each.layer.spikes,
            "moved_bytes": each.moved,
            "intensity": each.intensity,
            "bound": each.bound,
            "precision": each.precision,
            "predicted_ms": each.seconds * 1e3,
            "measured_ms": None if seconds is None else seconds * 1e3,
        }


def report(
    model: str,
    key: str,
    *,
    bits: str = "file",
    lengths: Mapping[str, Sequence[int]] | None = None,
    spike_rate: float | None = None,
    measured: bool = False,
    threads: int = 1,
    again: bool = False,
) -> tuple[Device, list[GraphReport]]:
    """Each graph of a model on a device.

    model: name or folder of a card, or an .onnx file. lengths: of open axes, as `graph.shaped` has
    them. measured: run them too, for which the device must be this machine. again: calibrate anew.
    Raises ConfigError or ModelError, naming the graph.
    """
    if measured and key != HERE:
        raise ConfigError(
            f"--measure is for --device {HERE}: '{key}' is not this machine",
            hint="a prediction for another device stays a prediction",
        )
    wanted = bits_of(bits)
    graphs = {name: _loaded(path) for name, path in _files(model).items()}
    split = _shared_out(graphs, lengths or {})
    where = calibrate.here(threads=threads, again=again) if key == HERE else device(key)
    found = []
    for name, loaded in graphs.items():
        try:
            graph = shaped(loaded, split[name])
            prediction = predict(count(graph), where, wanted)
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{name}: {error}", hint=error.hint) from error
        times = measure(graph, prediction.graph.layers, threads=threads) if measured else None
        found.append(GraphReport(name, prediction, times, spike_rate))
    return where, found


def lengths_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`name=1,3,256,256` or `axis=256` -> lengths. Raises ConfigError."""
    found = {}
    for text in texts:
        name, _, lengths = text.partition("=")
        parts = lengths.split(",")
        if not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise ConfigError(
                f"--shape {text}: must be a name and lengths above 0",
                hint="such as --shape picture=1,3,256,256 or --shape tokens=2082",
            )
        found[name] = tuple(map(int, parts))
    return found


def _files(model: str) -> dict[str, Path]:
    """Name of a graph -> its file."""
    path = Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        return {path.name: path}
    folder = places.find_model(model)
    found = {e.role: folder.folder / e.path for e in folder.card.files if e.path.endswith(".onnx")}
    if not found:
        raise ModelError(f"model '{folder.card.name}': its card names no .onnx file")
    return found


def _tail(name: str) -> str:
    """The end of a long name, which is the more telling one."""
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's own, which onnx does not wrap
        raise ModelError(f"{path}: not an ONNX file: {error}") from error


def _shared_out(
    graphs: Mapping[str, onnx.ModelProto], lengths: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Sequence[int]]]:
    """Lengths by graph: one that others of the model know is none of a graph's mistakes."""
    known = {
        key: {name for name, loaded in graphs.items() if takes(loaded.graph, key, given)}
        for key, given in lengths.items()
    }
    return {
        name: {k: v for k, v in lengths.items() if name in known[k] or not known[k]}
        for name in graphs
    }
