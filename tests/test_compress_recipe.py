"""Recipes: every mistake is one line that names the file and the table, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeperc.errors import ConfigError
from edgeperc.offline.compress import passes
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.recipe import chosen_sites, load_recipe, presets, read_recipe
from edgeperc.offline.compress.sites import Site, sites_of

from .tiny_promptable import tiny_sam2

HERE = "[[passes]]\nkind = 'quantize'\nat = 'image_encoder.*'\n"
SITES = sites_of(tiny_sam2())


def fold_nothing(ctx: Context, at: list[Site], *, strength: float, often: int = 1) -> PassResult:
    """A transform of a third party."""
    return PassResult()


FOREIGN = f"[[passes]]\nkind = '{__name__}:fold_nothing'\nrole = 'transform'\nstrength = 1.0\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_says_what_runs_where(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, f"seed = 3\n{HERE}weight = 'uniform4c'\n"))
    assert (recipe.name, recipe.seed, recipe.keep_fp) == ("mine", 3, None)
    (step,) = recipe.passes
    assert (step.kind, step.role, step.at) == ("quantize", "quantize", ("image_encoder.*",))
    assert step.options == {"weight": "uniform4c"}


def test_presets_are_read_and_fit_the_networks() -> None:
    assert {"w8a8", "w6a6"} <= set(presets())
    for name in ("w8a8", "w6a6"):
        recipe = load_recipe(name)
        assert recipe.summary
        assert chosen_sites(recipe, SITES, ())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there are no [[passes]]"),
        ("passes = 3", "there are no [[passes]]"),
        ("[[passes]]\nat = '*'", "[[passes]] #1: key 'kind' is missing"),
        ("[[passes]]\nkind = 'quantise'", "[[passes]] #1: unknown pass 'quantise'; did you mean"),
        (f"{HERE}wieght = 'uniform4c'", "'quantize' has no option 'wieght'; did you mean 'weight'"),
        (f"{HERE}{HERE}at = '*'\n", "(at line 7"),
        (f"seed = 1\nseed = 2\n{HERE}", "(at line 2"),
        (f"sede = 1\n{HERE}", "unknown key 'sede'; did you mean 'seed'?"),
        (f"version = 2\n{HERE}", "version"),
        (f"[calibration]\ntake = 0\n{HERE}", "[calibration] take"),
        (f"[calibration]\nsource = 'reel'\n{HERE}", "[calibration] source: unknown source 'reel'"),
        ("[[passes]]\nkind = 'quantize'\nat = 3", "[[passes]] #1 at: must be a glob"),
        ("[[passes]]\nkind = 'quantize'\nat = []", "[[passes]] #1 at: must be a glob"),
        (
            f"{HERE}{FOREIGN}",
            "#2: 'test_compress_recipe:fold_nothing' is a transform pass and must",
        ),
        (FOREIGN.replace("transform", "solve"), "no quantize pass comes before it"),
        (FOREIGN.replace("role = 'transform'", ""), "needs role = one of transform"),
        (FOREIGN.replace("strength", "weakness"), "has no option 'weakness'"),
        (FOREIGN.replace("strength = 1.0", ""), "needs 'strength'"),
        ("[[passes]]\nkind = 'nowhere.at:all'\nrole = 'solve'", "No module named 'nowhere'"),
    ],
)
def test_a_mistake_names_file_and_table(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_recipe(path)
    assert str(error.value).startswith(str(path))
    assert complaint.replace("test_compress_recipe", __name__) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_third_partys_pass_is_taken_by_its_place(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, f"{FOREIGN}{HERE}"))
    assert [step.role for step in recipe.passes] == ["transform", "quantize"]


def test_the_order_of_all_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in passes.ROLES:
        if role != "quantize":
            monkeypatch.setitem(passes.PASSES, f"a_{role}", (role, f"{__name__}:fold_nothing"))
    kinds = [f"a_{role}" if role != "quantize" else role for role in passes.ROLES]

    def text(order: list[str]) -> str:
        return "".join(
            f"[[passes]]\nkind = '{kind}'\n{'' if kind == 'quantize' else 'strength = 1.0'}\n"
            for kind in order
        )

    assert len(read_recipe(write(tmp_path, text(kinds))).passes) == 5
    for i in range(4):
        swapped = [*kinds[:i], kinds[i + 1], kinds[i], *kinds[i + 2 :]]
        with pytest.raises(ConfigError, match="must come before|no quantize pass"):
            read_recipe(write(tmp_path, text(swapped)))


def test_globs_that_fit_nothing_are_an_error_before_anything_runs(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, HERE.replace("image_encoder", "image_encodre")))
    with pytest.raises(ConfigError, match=r"#1 'quantize' at: 'image_encodre\.\*' fits no site"):
        chosen_sites(recipe, SITES, ())
    recipe = read_recipe(write(tmp_path, f"keep_fp = ['*.head']\n{HERE}"))
    with pytest.raises(ConfigError, match=r"keep_fp: '\*\.head' fits no site"):
        chosen_sites(recipe, SITES, recipe.keep_fp or ())
    recipe = read_recipe(write(tmp_path, HERE))
    with pytest.raises(ConfigError, match="stays in full precision"):
        chosen_sites(recipe, SITES, ("image_encoder",))


def test_what_stays_float_is_only_for_transforms(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, f"{FOREIGN}{HERE}"))
    transform, quantize = chosen_sites(recipe, SITES, ("*.patch_embed", "*.no_such_part"))
    kept = "image_encoder.trunk.patch_embed.proj"
    assert kept in {site.name for site in transform}
    assert kept not in {site.name for site in quantize}
    assert all(site.name.startswith("image_encoder.") for site in quantize)


def test_the_hash_is_of_what_a_recipe_says_not_of_how_it_is_written(tmp_path: Path) -> None:
    one = read_recipe(write(tmp_path, f"seed = 1\nversion = 1\n{HERE}"))
    same = read_recipe(write(tmp_path, f"# a comment\nversion = 1\n\nseed = 1\n{HERE}"))
    other = read_recipe(write(tmp_path, f"seed = 2\n{HERE}"))
    assert one.sha256 == same.sha256 != other.sha256
    assert len(one.sha256) == 64


def test_an_unknown_recipe_lists_the_presets() -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("w7a7")
    assert "w8a8" in error.value.hint
