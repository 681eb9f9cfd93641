from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from edgeperc.errors import ConfigError
from edgeperc.offline import train
from edgeperc.offline.datasets import TRAINING_STREETS, cached_twin
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.training_run import save_state

from .resuming import killed_at_its_checkpoint, steps_taken

TINY = train.Settings(
    width=8,
    steps=6,
    batch=2,
    crop_px=64,
    warm_up_steps=2,
    checkpoint_every=2,
    validate_every=4,
    settle_batches=1,
    streets=1,
    validation_streets=1,
    windows_a_street=2,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the two tiny streets are drawn already."""
    folder = tmp_path_factory.mktemp("run") / "cache"
    for street in (TRAINING_STREETS[0], train.VALIDATION_STREETS[0]):
        cached_twin([street], folder, windows_a_street=2, processes=1)
    return folder


def run_in(folder: Path, cache: Path, **options: object) -> tuple[train.Trained, str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(cache)
    shown = io.StringIO()
    defaults = {"settings": TINY, "threads": 1, "console": Console(file=shown, width=120)}
    trained = train.train("sltnet-twin", folder, **{**defaults, **options})  # type: ignore[arg-type]
    return trained, shown.getvalue()


def weights(trained: train.Trained) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(trained.weights, weights_only=True)
    return state


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[train.Trained, str]:
    """A run from its start to its end, and what it said."""
    return run_in(tmp_path_factory.mktemp("whole"), cache)


def test_a_run_reports_and_leaves_weights_that_load(whole: tuple[train.Trained, str]) -> None:
    trained, shown = whole
    assert "step 4: loss" in shown
    assert "mIoU" in shown
    assert 0 <= trained.scores.miou <= 1
    assert trained.scores.pixels == 2 * 260 * 346
    assert len(trained.firing) > 96
    SLTNet(6, width=8).load_state_dict(weights(trained), strict=True)


def test_a_run_that_ends_behind_a_checkpoint_goes_on_there(
    tmp_path: Path,
    cache: Path,
    whole: tuple[train.Trained, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with killed_at_its_checkpoint():
        run_in(tmp_path, cache)
    steps = steps_taken(monkeypatch)
    resumed, _ = run_in(tmp_path, cache)
    assert steps == list(range(2, 6))
    torch.testing.assert_close(weights(resumed), weights(whole[0]), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, cache: Path, whole: tuple[train.Trained, str]
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "cache").symlink_to(cache)
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from edgeperc.offline import train\n"
        f"settings = train.{TINY!r}\n"
        "train.train('sltnet-twin', Path(sys.argv[1]), settings=settings, threads=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    checkpoint = folder / "checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(checkpoint, weights_only=True)["step"] in (2, 4, 6)

    resumed, _ = run_in(folder, cache)
    torch.testing.assert_close(weights(resumed), weights(whole[0]), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, cache: Path) -> None:
    run_in(tmp_path, cache, steps=2)
    with pytest.raises(ConfigError, match="another seed or other settings"):
        run_in(tmp_path, cache, steps=2, seed=1)
    run_in(tmp_path, cache, steps=2, seed=1, resume=False)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_state({"step": 1}, path)

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        save_state({"step": Bomb()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_an_unknown_name_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot train 'resnet'"):
        train.train("resnet", tmp_path)


def test_the_loss_falls_from_wrong_to_right_and_ignores_the_unlabelled() -> None:
    labels = torch.randint(0, 6, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    right = 20 * nn.functional.one_hot(labels, 6).movedim(-1, 1).float()
    weights = torch.ones(6)
    assert float(train.label_loss(right, labels, weights)) == pytest.approx(0, abs=1e-4)
    assert float(train.label_loss(torch.zeros_like(right), labels, weights)) > 2
    assert float(train.label_loss(-right, labels, weights)) > 20

    masked = labels.clone()
    masked[:, :4] = 255
    spoilt = right.clone()
    spoilt[:, :, :4] = -spoilt[:, :, :4]
    torch.testing.assert_close(
        train.label_loss(spoilt, masked, weights), train.label_loss(right, masked, weights)
    )


def test_settled_statistics_are_the_average_over_all_pictures() -> None:
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(99)
    pictures = [torch.randn(1, 2, 8, 8) + k for k in range(4)]
    train.settle_statistics(nn.Sequential(norm), ([each] for each in pictures))
    expected = torch.stack([p.mean((0, 2, 3)) for p in pictures]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.momentum == 0.1
