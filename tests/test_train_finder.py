from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from edgeperc.errors import ConfigError
from edgeperc.offline import train_finder, trainers
from edgeperc.offline.box_loss import box_loss
from edgeperc.offline.nets.finder import Finder, Regions
from edgeperc.offline.sight_batches import BACKGROUND, NOBODY_ASKS, BoxBatch
from edgeperc.offline.sights import TRAINING_AVENUES, VALIDATION_AVENUES, Sights, cached_sights

TINY = train_finder.Settings(
    channels=(2, 4, 4, 4, 4),
    steps=6,
    batch=2,
    warm_up_steps=2,
    checkpoint_every=2,
    validate_every=4,
    avenues=1,
    validation_avenues=1,
    looks=4,
    cuts=4,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the two avenues are drawn already."""
    folder = tmp_path_factory.mktemp("run") / "cache"
    for avenue in (TRAINING_AVENUES[0], VALIDATION_AVENUES[0]):
        cached_sights([avenue], folder, looks=4, cuts=4)
    return folder


def run_in(
    folder: Path, cache: Path, *, name: str = "finder-twin", **options: object
) -> tuple[train_finder.Trained, str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(cache)
    shown = io.StringIO()
    defaults = {"settings": TINY, "threads": 1, "console": Console(file=shown, width=120)}
    trained = trainers.train(name, folder, **{**defaults, **options})
    return trained, shown.getvalue()


def weights(trained: train_finder.Trained) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(trained.weights, weights_only=True)["net"]
    return state


@pytest.mark.parametrize(("name", "figure"), [("finder-twin", "AP50"), ("regions-twin", "mIoU")])
def test_a_run_reports_and_leaves_weights_that_load(
    name: str, figure: str, tmp_path: Path, cache: Path
) -> None:
    trained, shown = run_in(tmp_path, cache, name=name)
    assert "step 4: loss" in shown
    assert figure in shown
    assert trained.scores.table("scores").row_count > 2
    net = Finder(2, TINY.channels) if figure == "AP50" else Regions(9, TINY.channels)
    net.load_state_dict(weights(trained), strict=True)


def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_in(tmp_path / "whole", cache)
    batch = train_finder.box_batch

    def stopped(data: Sights, key: tuple[int, int], count: int) -> BoxBatch:
        if key[1] == 3:
            raise KeyboardInterrupt
        return batch(data, key, count)

    monkeypatch.setattr(train_finder, "box_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "stopped", cache)
    monkeypatch.undo()
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["step"] == 3
    resumed, _ = run_in(tmp_path / "stopped", cache)
    torch.testing.assert_close(weights(resumed), weights(whole), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, cache: Path) -> None:
    run_in(tmp_path, cache, steps=2)
    with pytest.raises(ConfigError, match="another seed or other settings"):
        run_in(tmp_path, cache, steps=2, seed=1)
    run_in(tmp_path, cache, steps=2, seed=1, resume=False)


def test_an_unknown_name_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot train 'resnet'") as caught:
        trainers.train("resnet", tmp_path)
    assert caught.value.hint.startswith("can train: sltnet-twin, finder-twin, regions-twin")


def batch_of_one() -> BoxBatch:
    """One thing of class 1 at cell (3, 3), and a cell that nobody asks about."""
    class_ids = torch.full((1, 8, 8), BACKGROUND)
    class_ids[0, 3, 3], class_ids[0, 6, 6] = 1, NOBODY_ASKS
    boxes = torch.zeros(1, 8, 8, 4)
    boxes[0, 3, 3] = torch.tensor([12.0, 20.0, 44.0, 36.0])
    return BoxBatch(
        pictures=torch.zeros(1, 1, 64, 64),
        class_ids=class_ids,
        boxes=boxes,
        weights=torch.ones(1, 8, 8),
    )


def right_answer() -> Tensor:
    """Sure, exact, and sure of being exact."""
    answer = torch.zeros(1, 10, 8, 8)
    answer[:, :2] = -20
    answer[0, 1, 3, 3] = 20
    # Centre (28, 28): 16 px to the left and right, 8 px up and down.
    answer[0, 2:6, 3, 3] = torch.tensor([2.0, 1.0, 2.0, 1.0])
    answer[0, 6:] = -7
    return answer


def test_the_loss_is_least_where_the_answer_is_right() -> None:
    batch, right = batch_of_one(), right_answer()
    least = float(box_loss(right, batch))
    assert least == pytest.approx(0.2 * 0.5 * -7, abs=1e-3)  # only the stated variances
    rng = np.random.default_rng(0)
    for channel in (0, 1, 2, 3, 4, 5):
        worse = right.clone()
        worse[0, channel, 3, 3] += 30 if channel == 0 else float(rng.choice([-1, 1]))
        if channel == 1:
            worse[0, 1, 3, 3] = -20
        assert float(box_loss(worse, batch)) > least + 0.01, channel


def test_false_alarms_cost_except_where_nobody_asks() -> None:
    batch, right = batch_of_one(), right_answer()
    least = float(box_loss(right, batch))
    alarm, unasked = right.clone(), right.clone()
    alarm[0, 0, 1, 1] = 20
    unasked[0, 0, 6, 6] = 20
    assert float(box_loss(alarm, batch)) > least + 1
    assert float(box_loss(unasked, batch)) == pytest.approx(least)


def test_the_same_error_costs_more_on_a_small_thing() -> None:
    extra = []
    for half_px in (8.0, 80.0):
        batch, answer = batch_of_one(), right_answer()
        batch.boxes[0, 3, 3] = torch.tensor([28.0, 28.0, 28.0, 28.0])
        batch.boxes[0, 3, 3] += half_px * torch.tensor([-1.0, -1.0, 1.0, 1.0])
        answer[0, 2:6, 3, 3] = half_px / 8
        right = float(box_loss(answer, batch))
        answer[0, 2, 3, 3] += 0.5
        extra.append(float(box_loss(answer, batch)) - right)
    # Both have the same part for an edge in strides and for its stated variance.
    assert extra[0] > extra[1] + 0.2


def test_variances_learn_the_size_of_errors_and_nothing_else_of_them() -> None:
    batch = batch_of_one()
    answer = right_answer()
    answer[0, 2, 3, 3] += 0.5  # the left edge is half a stride off
    answer.requires_grad_()
    for spread in (-4.0, 2 * np.log(0.5), 1.0):
        with torch.no_grad():
            answer[0, 6, 3, 3] = spread
        (gradient,) = torch.autograd.grad(box_loss(answer, batch), answer)
        assert np.sign(round(float(gradient[0, 6, 3, 3]), 5)) == np.sign(
            round(spread - 2 * np.log(0.5), 5)
        )
    with torch.no_grad():
        answer[0, 6, 3, 3] = 5.0
    (lax,) = torch.autograd.grad(box_loss(answer, batch), answer)
    assert float(lax[0, 2, 3, 3]) == pytest.approx(float(gradient[0, 2, 3, 3]))


def test_a_batch_without_anything_teaches_silence() -> None:
    batch = batch_of_one()
    batch.class_ids[batch.class_ids == 1] = BACKGROUND
    answer = right_answer().requires_grad_()
    loss = box_loss(answer, batch)
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, answer)
    assert float(gradient[0, 1, 3, 3]) > 0
    assert torch.isfinite(gradient).all()
