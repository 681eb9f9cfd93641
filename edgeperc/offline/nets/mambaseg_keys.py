"""The published MambaSeg checkpoint's names for our layers; a load accounts for every key.

The names of encoders and scans are VMamba's (MzeroMiko/VMamba, MIT); those of fusion and head are
what CQU-UISC/MambaSeg writes. Sizes follow from the tensors. The weights themselves were not at
hand: the count of parameters agrees with the published network's to the last one, and the rest is
inferred from its description.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import Weights
from edgeperc.offline.nets.ddim import GRID
from edgeperc.offline.nets.mambaseg import Four, MambaSeg, MambaSegConfig
from edgeperc.offline.nets.strict_load import fitting, require_none

HINT = "Is this a MambaSeg checkpoint, published or of edgeperc train?"

STAGES = range(4)


def load_mambaseg(weights: Weights, *, input_px: tuple[int, int] | None = None) -> MambaSeg:
    """Build the network that a checkpoint was trained as, in evaluation mode.

    Reads the published layout and our own. input_px: height and width of the input; without one, a
    network that is tied to a size is refused. Raises ModelError naming the first key that is
    missing, unknown, of the wrong shape or not finite, and both sizes if the input's is not the
    checkpoint's.
    """
    state = weights.state
    if any(key.startswith("encoder_img.") for key in state):
        state = _renamed(state)
    config = config_of(state, input_px)
    net = MambaSeg(config)
    own = net.state_dict()
    _require(sorted(own.keys() - state.keys()), "lacks")
    _require(sorted(state.keys() - own.keys()), "has unknown key")
    net.load_state_dict({key: fitting(key, state[key], own[key]) for key in own})
    return net.eval()


def config_of(state: dict[str, Tensor], input_px: tuple[int, int] | None) -> MambaSegConfig:
    """Sizes of the network whose tensors these are, by our names. Raises ModelError."""
    scan = "channels.scans.0.scan.project"
    block, plane = "frame.stages.0.0", "fusions.0.plane.scans.0"
    needed = [
        *(f"merge.{i}.weight" for i in STAGES),
        *(f"fusions.{i}.{scan}" for i in STAGES),
        *(f"{side}.start.first.conv.weight" for side in ("frame", "events")),
        *(
            f"{block}.{leaf}"
            for leaf in ("mlp.0.weight", "scan.enter.weight", "scan.scan.log_decay")
        ),
        *(f"{plane}.{leaf}" for leaf in ("enter.weight", "scan.log_decay")),
        "head.classify.weight",
    ]
    _require([key for key in needed if key not in state], "lacks")
    first = len(state["merge.0.weight"])
    depths = [
        sum(f"frame.stages.{i}.{j}.mlp.0.weight" in state for j in range(100)) for i in STAGES
    ]
    cells = tuple(state[f"fusions.{i}.{scan}"].shape[-1] for i in STAGES)
    return MambaSegConfig(
        classes=len(state["head.classify.weight"]),
        frame_channels=state["frame.start.first.conv.weight"].shape[1],
        bins=state["events.start.first.conv.weight"].shape[1],
        widths=_four(len(state[f"merge.{i}.weight"]) for i in STAGES),
        depths=_four(depths),
        states=state[f"{block}.scan.scan.log_decay"].shape[1],
        ratio=len(state[f"{block}.scan.enter.weight"]) / first,
        mlp_ratio=len(state[f"{block}.mlp.0.weight"]) / first,
        fusion_states=state[f"{plane}.scan.log_decay"].shape[1],
        fusion_ratio=len(state[f"{plane}.enter.weight"]) / first,
        head_width=state["head.classify.weight"].shape[1],
        locked_px=None if set(cells) == {GRID**2} else _locked(cells, input_px),
    )


def _locked(cells: tuple[int, ...], input_px: tuple[int, int] | None) -> tuple[int, int]:
    """The input's size, if its stages have as many cells as the weights are for."""
    listed = ", ".join(map(str, cells))
    if input_px is None:
        raise ModelError(
            f"checkpoint: its fusion is tied to one size of picture ({listed} cells)",
            hint="say which: [input] of the model card",
        )
    have = MambaSegConfig(locked_px=input_px).cells()
    if have != cells:
        there = ", ".join(map(str, have or ()))
        raise ModelError(
            f"checkpoint: its fusion is tied to stages of {listed} cells; "
            f"{input_px[0]} × {input_px[1]} px (height × width) has {there}",
            hint="take the card of the size that it was trained at, or train one without the tie",
        )
    return input_px


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state by our names. Raises ModelError for a key that has none."""
    ours = published_modules(state)
    renamed, unknown = {}, []
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if leaf in _SCAN and module in ours:
            renamed[f"{ours[module]}.scan.{_SCAN[leaf]}"] = value
        elif module in ours:
            renamed[f"{ours[module]}.{leaf}"] = value
        else:
            unknown.append(key)
    _require(unknown, "has unknown key")
    return renamed


_SCAN = {
    "x_proj_weight": "project",
    "dt_projs_weight": "step",
    "dt_projs_bias": "step_bias",
    "A_logs": "log_decay",
    "Ds": "skip",
}


def published_modules(state: dict[str, Tensor]) -> dict[str, str]:
    """Published module path -> ours, as many blocks as there are."""
    names = {f"decoder.linear_c{i + 1}.proj": f"head.lift.{i}" for i in STAGES}
    names |= {f"out_convs.{i}": f"merge.{i}" for i in STAGES}
    names |= {
        "decoder.linear_fuse.0": "head.mix",
        "decoder.linear_fuse.1": "head.norm",
        "decoder.linear_pred": "head.classify",
    }
    for theirs, ours in (("encoder_img", "frame"), ("encoder_ev", "events")):
        names |= _encoder(theirs, ours, state)
    for i in STAGES:
        names |= _fusion(f"ccbs.{i}", f"fusions.{i}")
    return names


def _encoder(theirs: str, ours: str, state: dict[str, Tensor]) -> dict[str, str]:
    patches = {0: "first.conv", 2: "first.norm", 5: "second.conv", 7: "second.norm"}
    names = {f"{theirs}.patch_embed.{n}": f"{ours}.start.{name}" for n, name in patches.items()}
    names |= {f"{theirs}.outnorm{i}": f"{ours}.norms.{i}" for i in STAGES}
    for i in STAGES:
        names[f"{theirs}.layers.{i}.downsample.1"] = f"{ours}.down.{i}.conv"
        names[f"{theirs}.layers.{i}.downsample.3"] = f"{ours}.down.{i}.norm"
        for j in range(100):
            block = f"{theirs}.layers.{i}.blocks.{j}"
            if f"{block}.norm.weight" not in state:
                break
            own = f"{ours}.stages.{i}.{j}"
            names |= {
                f"{block}.norm": f"{own}.scan_norm",
                f"{block}.norm2": f"{own}.mlp_norm",
                f"{block}.mlp.fc1": f"{own}.mlp.0",
                f"{block}.mlp.fc2": f"{own}.mlp.2",
                **_scan(f"{block}.op", f"{own}.scan"),
            }
    return names


def _fusion(theirs: str, ours: str) -> dict[str, str]:
    names = {f"{theirs}.cca.shared_fc.{n}": f"{ours}.channels.squeeze.{n - 1}" for n in (1, 3)}
    names |= {f"{theirs}.csa.mlp.{n}": f"{ours}.plane.maps.{n}" for n in (0, 2)}
    for k, side in enumerate(("i", "e")):
        names |= {
            f"{theirs}.norm_{side}": f"{ours}.norms.{k}",
            f"{theirs}.conv_{side}1": f"{ours}.channels.beside.{k}",
            f"{theirs}.conv_{side}2": f"{ours}.plane.beside.{k}",
            f"{theirs}.conv_{side}3": f"{ours}.join.{k}",
            f"{theirs}.ca{k + 1}.fc.0": f"{ours}.channels.gates.{k}.squeeze.0",
            f"{theirs}.ca{k + 1}.fc.2": f"{ours}.channels.gates.{k}.squeeze.2",
            f"{theirs}.sa{k + 1}.conv1": f"{ours}.plane.gates.{k}.conv",
            **_scan(f"{theirs}.ssm_{side}", f"{ours}.channels.scans.{k}"),
            **_scan(f"{theirs}.ss2d_{side}", f"{ours}.plane.scans.{k}"),
        }
    return names


def _scan(theirs: str, ours: str) -> dict[str, str]:
    """The layer itself holds the scan's tensors; see `_SCAN`."""
    layers = {"in_proj": "enter", "conv2d": "mix", "out_norm": "norm", "out_proj": "leave"}
    return {theirs: ours, **{f"{theirs}.{a}": f"{ours}.{b}" for a, b in layers.items()}}


def _require(keys: list[str], what: str) -> None:
    """Raise ModelError if there are such keys."""
    require_none(keys, what, hint=HINT)


def _four(numbers: Iterable[int]) -> Four:
    one, two, three, four = numbers
    return one, two, three, four
