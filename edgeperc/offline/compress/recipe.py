"""Recipes: which passes run on which sites, in which order; TOML checked to the last key.

    recipe = load_recipe("w8a8")              # one that comes with the toolbox
    recipe = load_recipe("my.recipe.toml")

The structs are the schema. A mistake is a ConfigError that names file and table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgeperc.config import Positive, Strict, convert, read_toml
from edgeperc.errors import ConfigError, blame
from edgeperc.offline.compress.calibrate.sources import SOURCES
from edgeperc.offline.compress.passes import ROLES, check_options, role_of
from edgeperc.offline.compress.sites import Site, choose

SUFFIX = ".recipe.toml"


class Calibration(Strict, frozen=True, kw_only=True):
    """[calibration]. source: see `SOURCES`; path: of `real`, where the command line says none.
    take: samples to calibrate with; held_out: further ones that judge every pass.
    """

    source: str = "real"
    path: str = ""
    take: Positive = 32
    held_out: Positive = 8


class Accept(Strict, frozen=True, kw_only=True):
    """[accept]: what the result must keep, else it is not written. max_miou_drop: of 1.

    min_agreement: least mask IoU of files and simulated network, in place of 0.99.
    """

    max_miou_drop: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_error: Annotated[float, msgspec.Meta(gt=0)] | None = None
    min_agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class Export(Strict, frozen=True, kw_only=True):
    """[export]: of the graph. weights: int4 for those of quantizers `blocks…x4`. target: what it
    is laid out for; tensorrt takes opset 17.
    """

    target: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    format: Literal["onnx-qdq"] = "onnx-qdq"
    weights: Literal["int8", "int4"] = "int8"
    opset: Positive = 21


class Step(Strict, frozen=True, kw_only=True):
    """One of [[passes]]: a kind, the sites it is for, and the options of its function."""

    kind: str
    at: tuple[str, ...]
    role: str
    options: dict[str, Any]


class Recipe(Strict, frozen=True, kw_only=True):
    """A recipe file. keep_fp: globs of sites that stay float, None for what the network says."""

    name: str
    passes: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1)]
    version: Literal[1] = 1
    summary: str = ""
    model: str = ""
    seed: int = 0
    keep_fp: tuple[str, ...] | None = None
    calibration: Calibration = Calibration()
    accept: Accept = Accept()
    export: Export = Export()

    @property
    def sha256(self) -> str:
        """Of all that it says, whatever the file's layout; 64 hex digits."""
        encoded = msgspec.json.encode(msgspec.to_builtins(self), order="deterministic")
        return hashlib.sha256(encoded).hexdigest()


def presets() -> dict[str, Path]:
    """The recipes that come with the toolbox, by name."""
    folder = Path(str(resources.files("edgeperc.offline.compress"))) / "presets"
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def load_recipe(where: str) -> Recipe:
    """A recipe by the name of a preset or by its file. Raises ConfigError."""
    known = presets()
    path = known.get(where, Path(where))
    if where not in known and not path.is_file():
        raise ConfigError(
            f"--recipe {where}: neither a preset nor a file", hint=f"presets: {', '.join(known)}"
        )
    return read_recipe(path)


def read_recipe(path: Path) -> Recipe:
    """A recipe of a file. Raises ConfigError naming the file, and the table that is wrong."""
    table = read_toml(path)
    steps = table.get("passes")
    if not isinstance(steps, list) or not steps:
        raise ConfigError(f"{path}: there are no [[passes]]")
    table["passes"] = [_step(step, f"{path} [[passes]] #{n}") for n, step in enumerate(steps, 1)]
    table.setdefault("name", path.name.removesuffix(SUFFIX))
    recipe = convert(table, Recipe, where=str(path))
    if recipe.calibration.source not in SOURCES:
        raise ConfigError(
            f"{path} [calibration] source: unknown source '{recipe.calibration.source}'",
            hint=f"one of {', '.join(SOURCES)}",
        )
    check_order(recipe, str(path))
    check_export(recipe, str(path))
    return recipe


def check_order(recipe: Recipe, where: str) -> None:
    """Raises ConfigError where a pass comes behind one that it must be before."""
    latest = 0
    for number, step in enumerate(recipe.passes, 1):
        rank = ROLES.index(step.role)  # type: ignore[arg-type]
        if rank < latest:
            raise ConfigError(
                f"{where} [[passes]] #{number}: '{step.kind}' is a {step.role} pass and must come "
                f"before every {ROLES[latest]} pass",
                hint=f"the order is {' < '.join(ROLES)}",
            )
        latest = rank
        if ROLES[rank] in ("clip", "allocate", "solve") and not _quantized_before(recipe, number):
            raise ConfigError(
                f"{where} [[passes]] #{number}: '{step.kind}' works on quantizers, and no quantize "
                "pass comes before it"
            )


def check_export(recipe: Recipe, where: str) -> None:
    """Raises ConfigError where [export] says another thing than the passes, or than itself."""
    names = [str(step.options.get("weight", "")) for step in recipe.passes]
    wanted = "int4" if any(re.match(r"blocks\d+x4", name) for name in names) else "int8"
    if recipe.export.weights != wanted:
        raise ConfigError(
            f"{where} [export] weights: is {recipe.export.weights}, and the passes make {wanted}",
            hint='weights = "int4" goes with weight = "blocks32x4" or "blocks128x4" in [[passes]]',
        )
    if recipe.export.target == "tensorrt" and (recipe.export.opset != 17 or wanted == "int4"):
        raise ConfigError(
            f"{where} [export] target: tensorrt takes opset 17 and int8 weights",
            hint='opset = 17, weights = "int8"',
        )


def chosen_sites(
    recipe: Recipe, sites: Mapping[str, Site], keep_fp: tuple[str, ...], *, where: str = ""
) -> list[list[Site]]:
    """The sites of each pass. Those of keep_fp are only for transforms.

    Raises ConfigError naming the pass whose globs fit nothing.
    """
    if recipe.keep_fp:
        with blame(f"{where or recipe.name} keep_fp"):
            choose(sites, recipe.keep_fp)
    kept = {site.name for site in _kept(sites, keep_fp)}
    chosen = []
    for number, step in enumerate(recipe.passes, 1):
        with blame(f"{where or recipe.name} [[passes]] #{number} '{step.kind}' at"):
            found = choose(sites, step.at)
            left = [site for site in found if step.role == "transform" or site.name not in kept]
            if not left:
                raise ConfigError(f"{list(step.at)} fits only what stays in full precision")
        chosen.append(left)
    return chosen


def _kept(sites: Mapping[str, Site], keep_fp: tuple[str, ...]) -> list[Site]:
    """What a network's own defaults keep; a pattern of them may fit nothing in a small network."""
    try:
        return choose(sites, [p for p in keep_fp if _fits_any(sites, p)]) if keep_fp else []
    except ConfigError:
        return []


def _fits_any(sites: Mapping[str, Site], pattern: str) -> bool:
    try:
        return bool(choose(sites, pattern.removeprefix("!")))
    except ConfigError:
        return False


def _step(table: Any, where: str) -> dict[str, Any]:
    """One of [[passes]] as `Step` has it. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: must be a table")
    options = dict(table)
    kind, at, role = options.pop("kind", None), options.pop("at", "*"), options.pop("role", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: key 'kind' is missing")
    patterns = [at] if isinstance(at, str) else at
    if not (isinstance(patterns, list) and all(isinstance(p, str) for p in patterns) and patterns):
        raise ConfigError(f"{where} at: must be a glob or a list of globs")
    with blame(where):
        found = role_of(kind, role)
        check_options(kind, options)
    return {"kind": kind, "at": tuple(patterns), "role": found, "options": options}


def _quantized_before(recipe: Recipe, number: int) -> bool:
    return any(step.role == "quantize" for step in recipe.passes[: number - 1])
