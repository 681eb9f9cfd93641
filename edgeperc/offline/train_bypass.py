"""Train the adapter that tokens go through whose windows are left out, for our own small network.

    train("bypass", Path("out/bypass"), data=Path("../shared/data"))

The network stays as it is. An object is followed through a clip with whole frames; each frame is
encoded again with the windows only that would have been chosen, and the adapter learns to make the
features equal, at the encoder's end and, every third frame, in the light of the memory. Source:
Zhang et al., Efficient-SAM2, ICLR 2026, section 3.2; jingjing0419/Efficient-SAM2, which compares
the latter alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from edgeperc.errors import ConfigError
from edgeperc.offline.clip_data import ClipData, Mixture
from edgeperc.offline.clips import Clip
from edgeperc.offline.drawn_prompts import box_prompt, no_prompt
from edgeperc.offline.export_prompt import load_net
from edgeperc.offline.nets.efficient import Bypass, Routed, SaliencyTaps, bypass_of
from edgeperc.offline.nets.sam2 import Decoded, Features, Sam2
from edgeperc.offline.prompting_task import as_tensor
from edgeperc.offline.training_bank import TrainingBank
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, save_state
from edgeperc.prompting import seam
from edgeperc.prompting.windows import choose

MEMORY_EVERY, TRIES = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How fast it learns, and how long the clips are. held_out: clips to validate on."""

    pace: Pace
    frames: int = 8
    held_out: int = 24


SETTINGS = {
    "bypass": Settings(
        pace=Pace(steps=600, rate=1e-4, warm_up_steps=20, checkpoint_every=50, validate_every=200)
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BypassScores:
    """Error of routed features as a share of the variance of whole ones, with an adapter as it
    begins and as it was trained; share of the windows that was encoded.
    """

    before: float
    after: float
    windows: float

    def table(self, title: str) -> Table:
        """One line a figure."""
        table = Table("figure", "value", title=title, box=None)
        table.add_row("error before", f"{100 * self.before:.2f} %")
        table.add_row("error after", f"{100 * self.after:.2f} %")
        table.add_row("windows encoded", f"{100 * self.windows:.0f} %")
        return table

    def __str__(self) -> str:
        return f"error {100 * self.after:.2f} % of the variance, before {100 * self.before:.2f} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out. weights: by torch.save, `config`, `net` and `bypass`. model: whose files are
    made of them.
    """

    weights: Path
    scores: BypassScores
    seconds: float
    model: str


def train(
    name: str,
    out_dir: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = True,
    threads: int = 2,
    settings: Settings | None = None,
    console: Console | None = None,
) -> Trained:
    """Train into `out_dir`; goes on from the checkpoint there, unless resume is False.

    data: folder with any of bsds500, camvid and davis, or nothing, for the twin alone. weights:
    what `edgeperc train promptable` wrote; left out, it is in the folder beside out_dir. Raises
    ConfigError if it is missing, or for a checkpoint of another run.
    """
    settings = settings or SETTINGS[name]
    settings = replace(settings, pace=replace(settings.pace, steps=steps or settings.pace.steps))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    net = _network(weights or out_dir.parent / "promptable" / "weights.pt")
    out_dir.mkdir(parents=True, exist_ok=True)
    side_px = net.config.picture_px
    source = ClipData(data or out_dir / "none", side_px=side_px, cache=out_dir / "cache")
    bypass = bypass_of(net.config)
    untrained = {key: value.clone() for key, value in bypass.state_dict().items()}
    task = BypassTask(net, bypass, source.training, settings.frames, seed)
    identity = {"name": name, "seed": seed, "network": repr(net.config), "of": _digest(net)}
    run = TrainingRun(bypass, identity, out_dir / "checkpoint.pt", settings.pace)
    if resume:
        run.load()
    before = _errors(net, untrained, source.held_out, settings)
    target = out_dir / "weights.pt"

    def keep() -> BypassScores:
        state = {key: value.detach().clone() for key, value in bypass.state_dict().items()}
        content = {"config": asdict(net.config), "net": net.state_dict(), "bypass": state}
        save_state(content, target)
        after = _errors(net, state, source.held_out, settings)
        return BypassScores(before=before[0], after=after[0], windows=after[1])

    with progress_bar(console or Console()) as progress:
        run.fit(task.loss, progress, validate=lambda: str(keep()))
    return Trained(weights=target, scores=keep(), seconds=run.seconds, model=net.config.name)


class BypassTask:
    """What a step costs: one object through one clip."""

    def __init__(self, net: Sam2, bypass: Bypass, source: Mixture, frames: int, seed: int) -> None:
        self._net, self._bypass, self._source = net, bypass, source
        self._routed, self._frames, self._seed = Routed(net, bypass), frames, seed

    def loss(self, step: int) -> Tensor:
        """Mean squared difference of features, over the frames of a clip in which some window was
        left out; nothing if that is so in none of the clips that are drawn.
        """
        rng = np.random.default_rng((self._seed, step))
        torch.manual_seed(int(rng.integers(2**31)))  # of the adapter's dropout
        self._bypass.train()
        for _ in range(TRIES):
            clip = self._source.clips(rng, count=1, frames=self._frames, objects=1)[0]
            costs = [cost for cost, _ in self.costs(clip)]
            if costs:
                return torch.stack(costs).mean()
        return 0 * self._bypass.up_project.bias.sum()

    def costs(self, clip: Clip) -> Iterator[tuple[Tensor, float]]:
        """Cost of each routed frame, and the share of the windows that was encoded."""
        windows = self._routed.route.windows
        for index, (picture, seen) in enumerate(follow(self._net, clip)):
            if 0 < len(seen.windows) < windows:
                routed = self._routed(picture, torch.from_numpy(seen.windows)).embedding
                cost = F.mse_loss(routed, seen.embedding)
                if index % MEMORY_EVERY == 0:
                    cost = cost + F.mse_loss(seen.bank.attend(routed), seen.conditioned)
                yield cost, len(seen.windows) / windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A frame, encoded whole. windows: (K,) int64, what the frame before lets expect something in.
    bank: what is remembered when it is seen, of value until the next one.
    """

    embedding: Tensor
    conditioned: Tensor
    windows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    bank: TrainingBank


def follow(net: Sam2, clip: Clip) -> Iterator[tuple[Tensor, Seen]]:
    """The first object of a clip, from its box on: each frame but two, (1, 3, S, S) and as seen.

    The first frame has the prompt, the one after it is encoded whole at run time, too.
    """
    bank, taps = TrainingBank(net), SaliencyTaps(net.sam_mask_decoder)
    try:
        last, now = None, None
        for index, picture in enumerate(torch.split(as_tensor(clip.pictures), 1)):
            with torch.no_grad():
                now = net.encode(picture)
                if index:
                    conditioned = bank.attend(now.embedding)
            if index > 1 and last is not None:
                chosen = choose((last,), net.config.grid, net.config.windows[2])
                windows = np.flatnonzero(chosen)
                yield (
                    picture,
                    Seen(
                        embedding=now.embedding,
                        conditioned=conditioned,
                        windows=windows,
                        bank=bank,
                    ),
                )
            with torch.no_grad():
                if index:
                    decoded = net.decode(conditioned, now.high, *no_prompt(1))
                    best = 1 + int(decoded.ious[0, 1:].argmax())
                else:
                    decoded, best = _prompted(net, now, clip), 0
                bank.add(
                    now.embedding,
                    decoded.masks[:, best],
                    decoded.pointers[:, best],
                    decoded,
                    from_points=index == 0,
                )
                last = as_seam(decoded, taps.read())
    finally:
        taps.remove()


def as_seam(decoded: Decoded, saliency: Tensor) -> seam.Decoded:
    """An answer of the network in torch as sessions have it, of the first of a batch."""
    return seam.Decoded(
        masks=decoded.masks[0].numpy(),
        ious=decoded.ious[0].numpy(),
        object_logit=float(decoded.object_logits[0, 0]),
        saliency=saliency[0].numpy(),
    )


def _prompted(net: Sam2, now: Features, clip: Clip) -> Decoded:
    """The answer to the box around the clip's first object."""
    prompt = box_prompt(torch.from_numpy(clip.masks[:1, 0]))
    return net.decode(net.without_memory(now.embedding), now.high, *prompt)


@torch.no_grad()
def _errors(
    net: Sam2, state: dict[str, Tensor], held_out: Mixture, settings: Settings
) -> tuple[float, float]:
    """Error of routed features as a share of the variance of whole ones, and share of windows."""
    bypass = bypass_of(net.config)
    bypass.load_state_dict(state)
    routed = Routed(net, bypass.eval())
    errors, variances, shares = [], [], []
    for seed in range(settings.held_out):
        rng = np.random.default_rng((9, seed))
        clip = held_out.clips(rng, count=1, frames=settings.frames, objects=1)[0]
        for picture, seen in follow(net, clip):
            if len(seen.windows):
                found = routed(picture, torch.from_numpy(seen.windows)).embedding
                errors.append(float(F.mse_loss(found, seen.embedding)))
                variances.append(float(seen.embedding.var()))
                shares.append(len(seen.windows) / routed.route.windows)
    if not errors:
        return 0.0, 1.0
    return float(np.sum(errors) / np.sum(variances)), float(np.mean(shares))


def _network(path: Path) -> Sam2:
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file",
            hint="train the network first: edgeperc train promptable; or name it with --weights",
        )
    return load_net(path).requires_grad_(False)


def _digest(net: Sam2) -> str:
    digest = hashlib.sha256()
    for values in net.state_dict().values():
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
