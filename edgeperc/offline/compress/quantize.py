"""The pass that puts quantizers on sites and fits them: `quantize`.

Weights are fitted to themselves, inputs to what the network in full precision takes on the samples.
Of several quantizers for the shares of attention, each attention gets the one that disturbs its sum
of values least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.calibrate.stats import Some
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.products import fit_to_products
from edgeperc.offline.compress.quantizers import Use, make, with_bits
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.given import given_or
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.nets.tinyvit import ConvNorm

SEEN = 1 << 16
"""Values of a site, from all samples together, that its grid is fitted to."""
SEEN_PIXELS = 1 << 13
"""Likewise of what a convolution gives, for each channel."""
COMPARED_SAMPLES, COMPARED_ROWS = 4, 64
"""What quantizers of shares are compared on."""
BYTE = 8
OPERANDS = ("tap_q", "tap_k", "tap_v")
NONE = "none"


def quantize(
    ctx: Context,
    at: list[Site],
    *,
    weight: str = "uniform8c",
    act: str = "uniform8",
    matmul: str | None = None,
    softmax: str | list[str] = NONE,
    bits: int | None = None,
    conv_out: str = NONE,
) -> PassResult:
    """Quantize weights and inputs of layers, and in attention the operands of both products.

    weight, act: see `edgeperc.offline.compress.quantizers`; "none" leaves them float. matmul: of
    queries, keys and values, as act where it is not said. softmax: of the shares, one or several
    to choose from. bits: in place of those in the names of weight, act and matmul. Logits and sums
    stay as they are, and so do weights that the quantizer does not take. Sites that no sample
    reaches stay float.
    """
    if bits is not None:
        weight, act = with_bits(weight, bits), with_bits(act, bits)
        matmul = None if matmul is None else with_bits(matmul, bits)
    plan = plan_of(at, weight=weight, act=act, matmul=matmul, softmax=softmax, conv_out=conv_out)
    seen = _look(ctx, [name for name, each in plan.items() if each.value], reach=list(plan))
    result = PassResult(details={"sites": {}})
    unreached = [name for name in plan if name not in seen]
    choices: dict[str, list[Quantizer]] = {}
    for name in ctx.track([name for name in plan if name in seen], "fitting grids"):
        if len(plan[name].value) > 1:
            choices[name] = _candidates(plan[name], seen[name])
        else:
            _put(ctx, name, plan[name], seen[name])
    singles = {name: [ctx.sim.quantizers[name]] for name in plan if name in ctx.sim.quantizers}
    fit_to_products(ctx, {**singles, **choices})
    for name, q in _least_disturbing(ctx, choices).items():
        ctx.sim.tap(name, q)
    if conv_out != NONE:
        _round_outputs(ctx, [name for name in plan if name in seen], conv_out)
    for name in plan:
        if name in seen:
            result.details["sites"][name] = described(ctx, name)
    if unreached:
        result.notes.append(
            f"{len(unreached)} sites are never reached by the samples and stay float: "
            + ", ".join(unreached[:4])
            + (" …" if len(unreached) > 4 else "")
        )
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Names of quantizers for one site: of its weight, and of what it takes (several: a choice).

    bits: of a softmax whose name says none.
    """

    weight: str = ""
    value: tuple[str, ...] = ()
    bits: int | None = None


def plan_of(
    at: Sequence[Site],
    *,
    weight: str,
    act: str,
    matmul: str | None,
    softmax: str | list[str],
    conv_out: str = NONE,
) -> dict[str, Plan]:
    """What `quantize` will put where; without sites that stay float. Raises ConfigError."""
    shares = [softmax] if isinstance(softmax, str) else list(softmax)
    operands = act if matmul is None else matmul
    bits = None if act == NONE else make(act, use="act").bits
    if weight != NONE:
        make(weight, use="weight")
    for name in shares:
        if name != NONE:
            make(name, use="softmax", bits=bits)
    if conv_out != NONE:
        make(conv_out, use="act", axis=1)
    for name in (act, operands):
        q = None if name == NONE else make(name, use="act")
        if isinstance(q, Uniform) and q.axis is not None:
            raise ConfigError(f"'{name}': what a site takes has one grid for the whole tensor")
    plan = {}
    for site in at:
        last = site.name.rpartition(".")[2]
        if site.kind == "layer":
            value = () if act == NONE else (act,)
            layer: Any = site.module
            fits = weight != NONE and make(weight, use="weight").takes(layer.weight)
            found = Plan(weight=weight if fits else "", value=value)
        elif last in OPERANDS:
            found = Plan(value=() if operands == NONE else (operands,))
        elif last == "tap_softmax":
            found = Plan(value=() if shares == [NONE] else tuple(shares), bits=bits)
        else:
            continue
        if found.weight or found.value:
            plan[site.name] = found
    return plan


def described(ctx: Context, name: str) -> dict[str, Any]:
    """What stands at a site, for reports: bits and kinds of its quantizers."""
    found = {}
    for part in ("weight", "input", "output", "value"):
        q = ctx.sim.quantizers.get(name if part == "value" else f"{name}:{part}")
        if q is not None:
            found[part] = {"kind": type(q).__name__, "bits": q.bits, "export": q.export}
    return found


def rounds_output(ctx: Context, name: str) -> bool:
    """Whether a layer runs in integers only if what it gives is rounded.

    Of the runtimes' integer kernels products give floats, and so a 1 x 1 convolution becomes one;
    other convolutions give codes alone. Where weight or input are float, so is the layer.
    """
    layer = ctx.sim.sites[name].module
    if not isinstance(layer, nn.Conv2d):
        return False
    grids = [ctx.sim.quantizers.get(f"{name}:{part}") for part in ("weight", "input")]
    if not all(isinstance(grid, Uniform) and grid.bits <= BYTE for grid in grids):
        return False
    return set(layer.kernel_size) | set(layer.stride) | {layer.groups} != {1}


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that its outputs are on."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def _look(ctx: Context, names: Sequence[str], *, reach: Sequence[str]) -> dict[str, Tensor]:
    """Some values of each site that runs at all, in full precision; () of those not in names."""
    pieces = max(1, len(ctx.samples))
    some = {name: Some(SEEN, pieces=pieces, seed=ctx.seed) for name in names}
    ran: dict[str, Tensor] = {}

    def visit(name: str, values: Tensor) -> None:
        ran.setdefault(name, torch.zeros(0))
        if name in some:
            some[name].add(values)

    with ctx.sim.off():
        ctx.stream(reach, visit, what="looking at inputs")
    return {name: some[name].values() if name in some else empty for name, empty in ran.items()}


def _put(ctx: Context, name: str, plan: Plan, seen: Tensor) -> None:
    """Fit and place the quantizers of one site."""
    sim, site = ctx.sim, ctx.sim.sites[name]
    if plan.weight:
        q = make(plan.weight, use="weight", axis=channel_axis(site.module))
        sim.weight(name, _fitted(q, sim.original(name)))
    if plan.value and site.kind == "layer":
        q = given_or(make(plan.value[0], use="act"), site.module)
        sim.input(name, _fitted(q, seen))
    elif plan.value:
        use: Use = "softmax" if name.endswith("tap_softmax") else "act"
        sim.tap(name, _fitted(make(plan.value[0], use=use, bits=plan.bits), seen))


def _round_outputs(ctx: Context, names: Sequence[str], kind: str) -> None:
    """Grids for what some convolutions give in full precision, behind a norm that is folded."""
    wanted = [name for name in names if rounds_output(ctx, name)]
    held: dict[str, list[Tensor]] = {name: [] for name in wanted}
    few = max(1, SEEN_PIXELS // max(1, len(ctx.samples)))

    def visit(name: str, values: Tensor) -> None:
        parent = ctx.net.get_submodule(name.rpartition(".")[0])
        values = parent.bn(values) if isinstance(parent, ConvNorm) else values
        pixels = values.movedim(1, -1).flatten(0, -2)
        index = torch.linspace(0, len(pixels) - 1, min(few, len(pixels))).round().long()
        held[name].append(pixels[index])

    with ctx.sim.off():
        ctx.stream(wanted, visit, inputs=False, what="looking at outputs")
    for name in wanted:
        q = make(kind, use="act", axis=1)
        ctx.sim.output(name, _fitted(q, torch.cat(held[name])))


def _candidates(plan: Plan, seen: Tensor) -> list[Quantizer]:
    return [_fitted(make(each, use="softmax", bits=plan.bits), seen) for each in plan.value]


def _fitted(q: Quantizer, values: Tensor) -> Quantizer:
    q.fit(values)
    q.enabled = True
    return q


def _least_disturbing(ctx: Context, choices: Mapping[str, list[Quantizer]]) -> dict[str, Quantizer]:
    """At each tap the quantizer with the least error of the sum of values. The first of equals."""
    if not choices:
        return {}
    errors = {name: torch.zeros(len(each)) for name, each in choices.items()}
    taps = {f"{name.rpartition('.')[0]}.tap_v": name for name in choices}
    shares: dict[str, Tensor] = {}

    def visit(name: str, values: Tensor) -> None:
        if name in choices:
            shares[name] = _some_rows(values)
            return
        tap = taps[name]
        given = shares.pop(tap)
        exact = given @ values
        power = exact.square().sum().clamp(min=1e-30)
        for index, q in enumerate(choices[tap]):
            errors[tap][index] += (q(given) @ values - exact).square().sum() / power

    with ctx.sim.off():
        some = ctx.samples[:COMPARED_SAMPLES]
        ctx.stream([*choices, *taps], visit, some, what="choosing softmax grids")
    return {name: each[int(errors[name].argmin())] for name, each in choices.items()}


def _some_rows(shares: Tensor) -> Tensor:
    """Some queries' shares, (B, heads, rows, M), spread evenly."""
    count = shares.shape[-2]
    if count <= COMPARED_ROWS:
        return shares
    index = torch.linspace(0, count - 1, COMPARED_ROWS).round().long()
    return shares[..., index, :]
