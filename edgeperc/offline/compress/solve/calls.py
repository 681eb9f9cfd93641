"""What a module is called with while a network runs: kept, mixed, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress.solve.step_size import dropped


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one call: tensors, and lists, tuples or plain values among them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _EnoughError(Exception):
    """Everything that was wanted has been seen."""


@torch.no_grad()
def calls_of(net: nn.Module, name: str, run: Callable[[], object], *, most: int = 1) -> list[Call]:
    """The first `most` calls of the module `name` of `net` while `run()` runs the network.

    The run is cut short behind them. Raises ModelError if the module is never called.
    """
    seen: list[Call] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(Call(_kept(args), _kept(kwargs)))
        if len(seen) == most:
            raise _EnoughError

    # First of all hooks: what the quantizer of its input does is not yet done.
    hook = net.get_submodule(name).register_forward_pre_hook(keep, prepend=True, with_kwargs=True)
    try:
        run()
    except _EnoughError:
        pass
    finally:
        hook.remove()
    if not seen:
        raise ModelError(f"{name}: the network does not call it")
    return seen


@torch.no_grad()
def order_of(net: nn.Module, names: set[str], run: Callable[[], object]) -> dict[str, int]:
    """Which of the modules `run()` calls, the first called first, and how often each."""
    seen: dict[str, int] = {}

    def counter(name: str) -> Callable[[nn.Module, Any], None]:
        def count(_: nn.Module, __: Any) -> None:
            seen[name] = seen.get(name, 0) + 1

        return count

    modules = dict(net.named_modules())
    hooks = [modules[name].register_forward_pre_hook(counter(name)) for name in names]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def mixed(given: Any, exact: Any, drop: float, generator: torch.Generator) -> Any:
    """`given` with a share of `drop` of its numbers replaced by `exact`'s; structures alike."""
    if isinstance(given, Call):
        return Call(
            mixed(given.args, exact.args, drop, generator),
            mixed(given.kwargs, exact.kwargs, drop, generator),
        )
    if isinstance(given, Tensor):
        if not given.is_floating_point() or given is exact:
            return given
        return dropped(given, exact, drop, generator)
    if isinstance(given, list | tuple):
        parts = [mixed(g, e, drop, generator) for g, e in zip(given, exact, strict=True)]
        return tuple(parts) if isinstance(given, tuple) else parts
    if isinstance(given, dict):
        return {key: mixed(value, exact[key], drop, generator) for key, value in given.items()}
    return given


def tensors_of(outputs: Any) -> list[Tensor]:
    """All tensors of numbers in what a module answers, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [tensor for part in outputs for tensor in tensors_of(part)]
    return []


def _kept(values: Any) -> Any:
    """Detached; views of a larger tensor by themselves."""
    if isinstance(values, Tensor):
        return values.detach().clone()
    if isinstance(values, list):
        return [_kept(value) for value in values]
    if isinstance(values, tuple):
        return tuple(_kept(value) for value in values)
    if isinstance(values, dict):
        return {key: _kept(value) for key, value in values.items()}
    return values
