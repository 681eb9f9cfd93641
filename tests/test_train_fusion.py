from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from edgeperc.errors import ConfigError
from edgeperc.offline import fusion_pairs, train_fusion
from edgeperc.offline.fusion_batches import Blind, Tensors, crops
from edgeperc.offline.fusion_conditions import CONDITIONS, TRAINED
from edgeperc.offline.nets.mambaseg import VARIANTS, MambaSeg
from edgeperc.offline.samples import IGNORE, Sample
from edgeperc.places import find_card

from .resuming import killed_at_its_checkpoint, steps_taken

TINY = train_fusion.Settings(
    steps=4,
    batch=2,
    crop_px=48,
    warm_up_steps=2,
    checkpoint_every=2,
    validate_every=3,
    settle_batches=1,
    streets=1,
    windows_a_street=4,
    validation_streets=1,
    tested_windows=1,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny streets are drawn already."""
    folder = tmp_path_factory.mktemp("run") / "cache"
    draw = {"folder": folder, "processes": 1}
    training, watched = train_fusion.TRAINING_STREETS[:1], train_fusion.VALIDATION_STREETS[:1]
    fusion_pairs.cached_pairs(training, TRAINED, windows_a_street=4, **draw)
    for condition in CONDITIONS:
        fusion_pairs.cached_pairs(watched, [condition], windows_a_street=1, **draw)
    return folder


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return Tensors(find_card("mambaseg-nano").card)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return fusion_pairs.draw(20_001, 2, "day")


def run_in(folder: Path, cache: Path, **options: object) -> tuple[train_fusion.Trained, str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(cache)
    shown = io.StringIO()
    defaults = {"settings": TINY, "threads": 1, "console": Console(file=shown, width=120)}
    trained = train_fusion.train("mambaseg-nano", folder, **{**defaults, **options})  # type: ignore[arg-type]
    return trained, shown.getvalue()


def weights(trained: train_fusion.Trained) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(trained.weights, weights_only=True)
    return state


@pytest.fixture(scope="module")
def ended(
    cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[train_fusion.Trained, str]:
    """A run from its start to its end, and what it said."""
    return run_in(tmp_path_factory.mktemp("whole"), cache)


def test_a_run_reports_each_condition_and_goes_on_behind_a_checkpoint(
    tmp_path: Path,
    cache: Path,
    ended: tuple[train_fusion.Trained, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, shown = ended
    assert "step 3: loss" in shown
    assert "night-glare (never trained on)" in shown
    assert list(whole.by_condition) == [*CONDITIONS, "all"]
    assert whole.by_condition["all"].pixels == 6 * 200 * 352
    MambaSeg(VARIANTS["mambaseg-nano"]).load_state_dict(weights(whole), strict=True)

    with killed_at_its_checkpoint():
        run_in(tmp_path, cache)
    steps = steps_taken(monkeypatch)
    resumed, _ = run_in(tmp_path, cache)
    assert steps == list(range(2, 4))
    torch.testing.assert_close(weights(resumed), weights(whole), atol=1e-5, rtol=1e-5)

    with pytest.raises(ConfigError, match="another seed or other settings"):
        run_in(tmp_path, cache, settings=replace(TINY, blind=Blind(modality="frames")))


@pytest.mark.slow
def test_a_run_goes_on_after_a_kill(
    tmp_path: Path, cache: Path, ended: tuple[train_fusion.Trained, str]
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "cache").symlink_to(cache)
    code = (
        "import sys; from pathlib import Path\n"
        "from edgeperc.offline import train_fusion\n"
        "from edgeperc.offline.fusion_batches import Blind\n"
        f"settings = train_fusion.{TINY!r}\n"
        "train_fusion.train('mambaseg-nano', Path(sys.argv[1]), settings=settings, threads=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    checkpoint = folder / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(checkpoint, weights_only=True)["step"] in (2, 4)
    resumed, _ = run_in(folder, cache)
    torch.testing.assert_close(weights(resumed), weights(ended[0]), atol=1e-5, rtol=1e-5)


def test_the_truth_lies_on_the_networks_pixels(tensors: Tensors, sample: Sample) -> None:
    """The network's pixels, brought back to the sensor, are the labels that the truth was from."""
    truth = tensors.truth(sample.labels)
    assert truth.shape == (200, 352)
    assert IGNORE not in truth
    back = tensors._input.labels_to_sensor(truth)
    seen = back != IGNORE
    assert seen[:199].all()
    assert not seen[201:].any()
    assert (back[seen] == sample.labels[seen]).mean() > 0.99


def test_ablations_see_one_input_and_others_lose_one_now_and_then(
    tensors: Tensors, sample: Sample
) -> None:
    rng = np.random.default_rng(0)
    assert {Blind(modality="frames").draw(rng) for _ in range(50)} == {(True, False)}
    assert {Blind(modality="events").draw(rng) for _ in range(50)} == {(False, True)}
    drawn = [Blind(without_frame=0.2, without_events=0.1).draw(rng) for _ in range(2000)]
    assert drawn.count((False, True)) == pytest.approx(400, abs=80)
    assert drawn.count((True, False)) == pytest.approx(200, abs=60)
    assert (False, False) not in drawn
    for has in ((True, True), (True, False), (False, True)):
        frame, voxels = tensors.inputs(sample, has)
        assert (frame.any(), voxels.any()) == has


def test_crops_are_the_same_for_the_same_key_and_mirror_all_alike(tensors: Tensors) -> None:
    data = fusion_pairs.pairs([20_001], ["day"], windows_a_street=1)
    blind = Blind(without_frame=0, without_events=0)
    first, again = (crops(data, tensors, (0, 1), 6, 352, blind) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    frames, voxels, labels = first
    mirrored = [not torch.equal(frames[0], each) for each in frames]
    assert 0 < sum(mirrored) < 6
    at = mirrored.index(True)
    for each in (frames, voxels, labels):
        assert torch.equal(each[at], each[0].flip(-1))


def test_an_unknown_name_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot train 'mambaseg-huge'"):
        train_fusion.train("mambaseg-huge", tmp_path)
