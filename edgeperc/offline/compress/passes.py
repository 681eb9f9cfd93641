"""The passes that a recipe may have: a new one is one line in PASSES.

A pass is a function `(ctx: Context, at: list[Site], **options) -> PassResult`. Its keyword
arguments are the keys of its table in a recipe; those without default must be there. What it may do
follows from its role, and the engine checks it:

transform   changes weights in full precision and leaves every answer as it was
quantize    puts quantizers on sites
clip        moves the limits of quantizers that are there
allocate    says how many bits each site gets; `details["bits"]` of its result
solve       moves values until the network errs less on what it was not given
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Literal, TypeAlias, get_args

from edgeperc.errors import ConfigError

Role: TypeAlias = Literal["transform", "quantize", "clip", "allocate", "solve"]
ROLES: tuple[Role, ...] = get_args(Role)
"""In the order in which they may come in a recipe."""

HERE = "edgeperc.offline.compress"

PASSES: dict[str, tuple[Role, str]] = {
    "rep": ("transform", f"{HERE}.transforms.rep:rep"),
    "sign_fold": ("transform", f"{HERE}.transforms.sign_fold:sign_fold"),
    "quantize": ("quantize", f"{HERE}.quantize:quantize"),
    "clip.pcc": ("clip", f"{HERE}.solve.clip_focus:clip_focus"),
    "allocate": ("allocate", f"{HERE}.allocate:allocate"),
    "reconstruct": ("solve", f"{HERE}.solve.reconstruct:reconstruct"),
    "distil": ("solve", f"{HERE}.solve.distil:distil"),
}
"""Kind in a recipe -> its role and where its function is."""


@dataclass(slots=True)
class PassResult:
    """What a pass did. notes: sentences for the report. details: plain values, for ledger.json."""

    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def role_of(kind: str, given: str | None = None) -> Role:
    """The role of a kind; of a third party's `package.module:function` it is what the recipe says.

    Raises ConfigError.
    """
    if ":" in kind:
        if given not in ROLES:
            raise ConfigError(f"'{kind}' needs role = one of {', '.join(ROLES)}")
        return given  # type: ignore[return-value]
    if kind not in PASSES:
        near = difflib.get_close_matches(kind, list(PASSES), n=1)
        raise ConfigError(
            f"unknown pass '{kind}'" + (f"; did you mean '{near[0]}'?" if near else ""),
            hint=f"there are {', '.join(PASSES)}, or 'package.module:function'",
        )
    role = PASSES[kind][0]
    if given not in (None, role):
        raise ConfigError(f"'{kind}' is a {role} pass, not {given}")
    return role


def function_of(kind: str) -> Callable[..., PassResult]:
    """The function of a kind. Raises ConfigError if it cannot be loaded."""
    where = kind if ":" in kind else PASSES[kind][1]
    module, _, name = where.partition(":")
    try:
        found: Callable[..., PassResult] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"'{kind}': {error}") from error
    return found


def check_options(kind: str, options: dict[str, Any]) -> None:
    """Raises ConfigError for an option that the function does not take, or one that is missing."""
    _, _, *taken = signature(function_of(kind)).parameters.values()
    if any(each.kind is Parameter.VAR_KEYWORD for each in taken):
        return
    names = [each.name for each in taken]
    for option in options:
        if option not in names:
            near = difflib.get_close_matches(option, names, n=1)
            raise ConfigError(
                f"'{kind}' has no option '{option}'"
                + (f"; did you mean '{near[0]}'?" if near else ""),
                hint=f"it takes {', '.join(names) or 'none'}",
            )
    for each in taken:
        if each.default is Parameter.empty and each.name not in options:
            raise ConfigError(f"'{kind}' needs '{each.name}'")
