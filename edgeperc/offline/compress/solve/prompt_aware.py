"""Prompt-aware reconstruction: a unit is judged by what the prompts get to see of it.

A stage of the encoder, the blocks up to and including one that looks at the whole picture, hands
its output past all later stages to the neck; the exact two-way transformer reads it with the
picture's own prompts, and the loss is on the picture tokens that come out. A layer of the two-way
transformer is judged by its tokens and by the tokens behind the last layer. All else is block
reconstruction. Source: Zhang et al., SAQ-SAM (AAAI 2026), prompt-aware reconstruction.

For Hiera (ours): only the third and the fourth stage reach the picture's embedding, which is the
sum of both. A group of the third stage, or the fourth, goes to the neck while the exact network
gives the other's share; blocks of the first two stages are reconstructed as blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.solve.calls import Call, calls_of
from edgeperc.offline.compress.solve.units import Unit, block_units, module_unit
from edgeperc.offline.nets.hiera import Hiera
from edgeperc.offline.nets.mask_decoder import TwoWayTransformer
from edgeperc.offline.nets.vit import ImageEncoderViT

PROMPTS = 16
"""Of each picture, at most."""

QUERIES, KEYS, FINAL = 0.01, 1.0, 1.0
"""Shares of a layer's tokens, of its picture, and of the tokens behind the last layer."""

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the exact network makes of a sample. stages: what the neck takes; embedding: (1, C, g,
    g), what it answers; prompts: the two-way transformer's call, of at most PROMPTS prompts.
    """

    stages: Any
    embedding: Tensor
    prompts: Call


def prompt_units(subject: Subject, sites: Iterable[str], sample: Sample) -> list[Unit]:
    """Stages, layers of the two-way transformer, and blocks where neither is."""
    net = subject.net
    blocks = block_units(subject, sites, sample)
    transformer = _only(net, TwoWayTransformer)
    if transformer is None:
        return blocks
    special = _layers(subject, *transformer)
    for kind, stages in ((ImageEncoderViT, _vit_stages), (Hiera, _hiera_stages)):
        encoder = _only(net, cast(type[nn.Module], kind))
        if encoder is not None:
            special += cast(Any, stages)(subject, *encoder, transformer[0])
    return _in_place(blocks, special)


def groups(first: int, end: int, whole: Callable[[int], bool]) -> list[range]:
    """Blocks first to end - 1 in runs that end with one that looks at the whole picture."""
    ends = [index + 1 for index in range(first, end) if whole(index) or index == end - 1]
    return [range(*pair) for pair in pairwise([first, *ends])]


def _layers(subject: Subject, name: str, transformer: TwoWayTransformer) -> list[Unit]:
    return [
        _layer(subject, f"{name}.layers.{index}", transformer, index)
        for index in range(len(transformer.layers))
    ]


def _layer(subject: Subject, name: str, transformer: TwoWayTransformer, index: int) -> Unit:
    unit = module_unit(subject, name)

    def look(outputs: list[Tensor], call: Call, _: Any) -> list[Tensor]:
        tokens, picture = outputs
        prompts, places, bias = call.args[2:5]
        for layer in list(transformer.layers)[index + 1 :]:
            tokens, picture = layer(tokens, picture, prompts, places, bias)
        looked = transformer.final_attn_token_to_image(tokens + prompts, picture + places, picture)
        return [*outputs, transformer.norm_final_attn(tokens + looked)]

    return replace(unit, kind="prompt", look=look, shares=(QUERIES, KEYS, FINAL))


def _vit_stages(
    subject: Subject, name: str, encoder: ImageEncoderViT, transformer: str
) -> list[Unit]:
    net, blocks = subject.net, encoder.blocks
    seen = _seen(subject, f"{name}.neck", transformer)

    def unit(stage: range) -> Unit:
        def calls(sample: Sample) -> list[Call]:
            first = f"{name}.blocks.{stage[0]}"
            return calls_of(net, first, lambda: subject.run(net, sample))

        def run(call: Call) -> list[Tensor]:
            (x,) = call.args
            for index in stage:
                x = blocks[index](x)
            return [x]

        def look(outputs: list[Tensor], _: Call, exact: Seen) -> list[Tensor]:
            embedding = encoder.neck(outputs[0].permute(0, 3, 1, 2))
            return [_prompted(net, transformer, exact, embedding)]

        return Unit(
            f"{name}.blocks.{stage[0]}-{stage[-1]}",
            "prompt",
            tuple(f"{name}.blocks.{index}" for index in stage),
            calls,
            run,
            beside=seen,
            look=look,
        )

    whole = [getattr(block, "window") == 0 for block in blocks]  # noqa: B009 - a Module's attribute
    return [unit(stage) for stage in groups(0, len(blocks), whole.__getitem__)]


def _hiera_stages(subject: Subject, name: str, trunk: Hiera, transformer: str) -> list[Unit]:
    net, neck = subject.net, f"{name.removesuffix('trunk')}neck"
    seen = _seen(subject, neck, transformer)

    def unit(level: int, stage: range) -> Unit:
        def calls(sample: Sample) -> list[Call]:
            (picture,) = calls_of(net, name, lambda: subject.run(net, sample))[0].args
            x, maps = trunk.embed(picture)
            for index in range(stage[0]):
                x = trunk.block(index, x, maps)
            return [Call((x, maps), {})]

        def run(call: Call) -> list[Tensor]:
            x, maps = call.args
            for index in stage:
                x = trunk.block(index, x, maps)
            return [x]

        def look(outputs: list[Tensor], _: Call, exact: Seen) -> list[Tensor]:
            stages = list(exact.stages)
            stages[level] = outputs[0].permute(0, 3, 1, 2)
            return [_prompted(net, transformer, exact, net.get_submodule(neck)(stages)[-1])]

        return Unit(
            f"{name}.blocks.{stage[0]}-{stage[-1]}",
            "prompt",
            tuple(f"{name}.blocks.{index}" for index in stage),
            calls,
            run,
            beside=seen,
            look=look,
        )

    ends = [end + 1 for end in trunk.stage_ends]
    whole = [getattr(block, "window") == 0 for block in trunk.blocks]  # noqa: B009
    third = groups(ends[1], ends[2], whole.__getitem__)
    return [*(unit(2, stage) for stage in third), unit(3, range(ends[2], ends[3]))]


def _seen(subject: Subject, neck: str, transformer: str) -> Callable[[Sample], Seen]:
    """What the exact network makes of a sample, worked out once."""
    net = subject.net
    known: dict[int, tuple[Sample, Seen]] = {}

    def look(sample: Sample) -> Seen:
        (stages,) = calls_of(net, neck, lambda: subject.run(net, sample))[0].args
        (call,) = calls_of(net, transformer, lambda: subject.run(net, sample))
        embedding = net.get_submodule(neck)(stages)
        embedding = embedding if isinstance(embedding, Tensor) else embedding[-1]
        first = tuple(v if v is None or len(v) == 1 else v[:PROMPTS] for v in call.args)
        return Seen(stages, embedding, Call(first, call.kwargs))

    def seen(sample: Sample) -> Seen:
        if id(sample) not in known:
            known[id(sample)] = sample, look(sample)
        return known[id(sample)][1]

    return seen


def _prompted(net: nn.Module, transformer: str, exact: Seen, embedding: Tensor) -> Tensor:
    """Picture tokens (P, g*g, C) behind the two-way transformer, for another embedding.

    All that a prompt adds to the embedding it adds alike, so the difference is enough.
    """
    picture, *others = exact.prompts.args
    change = (embedding - exact.embedding).flatten(2).transpose(1, 2)
    out = net.get_submodule(transformer)(picture + change, *others, **exact.prompts.kwargs)
    return cast(Tensor, out[1])


def _only(net: nn.Module, kind: type[M]) -> tuple[str, M] | None:
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, kind)]
    return found[0] if len(found) == 1 else None


def _in_place(blocks: list[Unit], special: list[Unit]) -> list[Unit]:
    """`special` units where the first of the blocks stood that each takes in."""
    units: list[Unit] = []
    for block in blocks:
        unit = next((unit for unit in special if unit.holds(block.name)), block)
        if unit not in units:
            units.append(unit)
    return units
