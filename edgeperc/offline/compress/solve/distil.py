"""Distillation: the whole network learns at once to answer prompts as it did before it was rounded.

    distil(ctx, at, iters=200)

Reconstruction looks at one unit at a time; what a unit leaves undone the next ones cannot know.
Behind it, codes and scales of weights, steps of activations, biases and norms learn together from
what the exact network answers to the samples' own prompts: masks, as soft targets, and their
ratings. No truth is read. Every other picture is seen in the mirror. Sources: Hinton et al. 2015
(arXiv 1503.02531) for soft targets; Chen et al. 2024 (EfficientQAT, arXiv 2407.11062) for learning
a whole network behind its blocks; Esser et al. 2020 (LSQ) for steps. Ours, and not in SAQ-SAM: that
all of this learns in one pass, and that a mask's error counts as a share of its area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.compress.solve.adaround import Rounded
from edgeperc.offline.compress.solve.learn_unit import frozen
from edgeperc.offline.compress.solve.learned_codes import LearnedCodes
from edgeperc.offline.compress.solve.learning import put
from edgeperc.offline.compress.solve.step_size import LearnedStep
from edgeperc.offline.drawn_prompts import CORNERS
from edgeperc.offline.nets.prompt_encoder import LayerNorm2d

LEAST_AREA = 0.01
"""Of a picture; a smaller mask counts as if it were that large."""
FAR, RATING = 3.0, 10.0
"""What an error of the logits, and of the ratings, weighs beside one of the masks."""
NORMS = (nn.LayerNorm, nn.BatchNorm2d, LayerNorm2d)

Answer = dict[str, Tensor]


def distil(
    ctx: Context,
    at: Sequence[Site],
    *,
    iters: int = 200,
    batch: int = 1,
    code_rate: float = 1e-3,
    step_rate: float = 5e-4,
    float_rate: float = 1e-4,
) -> PassResult:
    """Learn all quantizers at these sites together, and the network's biases and norms.

    iters: steps, each on `batch` samples. Rates are Adam's and fall by half a cosine to 0:
    code_rate of weights, in steps of their grid; step_rate of scales, as shares of them; float_rate
    of biases and norms. A run that was killed begins this pass anew. Raises ConfigError for a
    network that is not asked by prompts, ModelError where the error is not finite.
    """
    if not all("points" in sample for sample in ctx.samples):
        raise ConfigError("distil: only networks that are asked by prompts learn this way")
    samples = [each for sample in ctx.samples for each in (sample, mirrored(sample))]
    exact = ctx.outputs(samples, exact=True)
    generator = torch.Generator().manual_seed(ctx.seed)
    with frozen(ctx.net):
        learnt = Learnt(ctx, {site.name for site in at}, generator)
        groups = learnt.groups(code_rate, step_rate, float_rate)
        adam = torch.optim.Adam([group for group in groups if group["params"]])
        highest = [group["lr"] for group in adam.param_groups]
        losses: list[float] = []
        for step in ctx.track(range(iters), "distil"):
            for group, rate in zip(adam.param_groups, highest, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / iters))
            adam.zero_grad()
            for index in torch.randint(len(samples), (batch,), generator=generator).tolist():
                out = ctx.subject.run(ctx.net, samples[index])
                loss = distance(out, exact[index]) / batch
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(float(loss.detach()) * batch)
            if not math.isfinite(losses[-1]):
                raise ModelError(f"distil: the error is {losses[-1]} at step {step}")
            adam.step()
        learnt.settle()
    part = max(1, len(losses) // 10)
    first, last = (sum(some) / len(some) for some in (losses[:part], losses[-part:]))
    note = f"{iters} steps; error of masks and ratings at first {first:.3g}, at last {last:.3g}"
    return PassResult(notes=[note], details={"losses": losses})


class Learnt:
    """What learns, put on the network in place of the quantizers at the sites `names`."""

    def __init__(self, ctx: Context, names: set[str], generator: torch.Generator) -> None:
        self._sim = ctx.sim
        self.codes: dict[str, LearnedCodes] = {}
        self.steps: dict[str, LearnedStep] = {}
        for key, q in list(ctx.sim.quantizers.items()):
            name, _, part = key.partition(":")
            if name not in names:
                continue
            if part != "weight":
                self.steps[key] = LearnedStep(q, drop=0.0, generator=generator)
            elif isinstance(q, Uniform | Rounded):
                self.codes[key] = LearnedCodes(q, ctx.sim.original(name))
        for key, learned in {**self.codes, **self.steps}.items():
            put(ctx.sim, key, learned)
        self.floats = floats_of(ctx.net)
        for each in self.floats:
            each.requires_grad_(True)

    def groups(
        self, code_rate: float, step_rate: float, float_rate: float
    ) -> list[dict[str, object]]:
        """Groups of an optimiser."""
        scales = [each.ratio for each in self.codes.values()]
        steps = [p for each in self.steps.values() for p in each.parameters()]
        return [
            {"params": [each.place for each in self.codes.values()], "lr": code_rate},
            {"params": [*scales, *steps], "lr": step_rate},
            {"params": self.floats, "lr": float_rate},
        ]

    def settle(self) -> None:
        """All hard again, as learned."""
        for key, codes in self.codes.items():
            put(self._sim, key, codes.settled())
        for key, step in self.steps.items():
            q = step.settled()
            q.enabled = step.enabled
            put(self._sim, key, q)


def floats_of(net: nn.Module) -> list[nn.Parameter]:
    """Biases of layers, and all of norms: what stays in full precision beside quantized weights."""
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    found = [p for m in net.modules() if isinstance(m, NORMS) for p in m.parameters()]
    for module in net.modules():
        if isinstance(module, layers):
            found += [p for name, p in module.named_parameters() if name == "bias"]
    return found


def distance(out: Answer, exact: Answer) -> Tensor:
    """How far answers are from the exact ones, 0 where they are the same; a scalar.

    masks (B, M, h, h) logits: the divergence of each pixel's probability, summed over a mask's
    pixels as a share of its area, and the squared error of the logits as a share of their power.
    ious (B, M): squared.
    """
    wanted = exact["masks"].sigmoid()
    entropy = F.binary_cross_entropy_with_logits(exact["masks"], wanted, reduction="none")
    cross = F.binary_cross_entropy_with_logits(out["masks"], wanted, reduction="none")
    area = wanted.mean((-2, -1)).clamp(min=LEAST_AREA)
    masks = ((cross - entropy).mean((-2, -1)) / area).mean()
    far = (out["masks"] - exact["masks"]).square().sum() / exact["masks"].square().sum()
    return masks + FAR * far + RATING * (out["ious"] - exact["ious"]).square().mean()


def mirrored(sample: Sample) -> Sample:
    """The picture (1, 3, S, S) from right to left, and its prompts with it."""
    points, labels = sample["points"].clone(), sample["labels"]
    x = points[..., 0]
    points[..., 0] = torch.where(labels >= 0, sample["picture"].shape[-1] - 1 - x, x)
    # A box's first corner is its left one.
    box = labels[:, 0] == CORNERS[0]
    points[box, :2, 0] = points[box, :2, 0].flip(-1)
    return {"picture": sample["picture"].flip(-1), "points": points, "labels": labels}
