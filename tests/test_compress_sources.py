"""What networks are calibrated with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
import torch

from edgeperc.errors import ConfigError, DataError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.adapters.prompts import score_masks
from edgeperc.offline.compress.calibrate.sources import draw, names_of, open_pictures
from edgeperc.offline.datasets import TRAINING_STREETS, twin
from edgeperc.offline.nets.sltnet import SLTNet

from .tiny_promptable import film, tiny_sam, tiny_sam2

SUBJECT = subject_for(tiny_sam2())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, image in enumerate(film(10)):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), image[..., ::-1])
    return tmp_path


def bsds(folder: Path, count: int = 3) -> Path:
    """Photographs with a square and a thin line in each."""
    for kind in ("images", "groundTruth"):
        (folder / kind / "train").mkdir(parents=True)
    for number, image in enumerate(film(count)):
        cv2.imwrite(str(folder / "images" / "train" / f"{number}.jpg"), image)
        labels = np.ones(image.shape[:2], np.uint16)
        labels[10:30, 20:50] = 2
        labels[0, :3] = 3
        cell = np.empty((1, 1), object)
        cell[0, 0] = {"Segmentation": labels}
        scipy.io.savemat(folder / "groundTruth" / "train" / f"{number}.mat", {"groundTruth": cell})
    return folder


def test_pictures_without_masks_are_clicked_on_a_grid(pictures: Path) -> None:
    samples, held_out = draw("real", SUBJECT, data=str(pictures), count=6, held_out=2, seed=0)
    assert (len(samples), len(held_out)) == (6, 2)
    for sample in (*samples, *held_out):
        assert sample["picture"].shape == (1, 3, 64, 64)
        assert sample["points"].shape == (4, 3, 2)
        assert sample["labels"].tolist() == [[1, -1, -2]] * 4
        assert "truth" not in sample
    assert names_of(samples) == "6 samples, 24 prompts"


def test_objects_get_a_click_on_them_and_the_box_around_them(tmp_path: Path) -> None:
    samples, held_out = draw("real", SUBJECT, data=str(bsds(tmp_path)), count=2, held_out=1, seed=0)
    assert (len(samples), len(held_out)) == (2, 1)
    for sample in samples:
        truth, points = sample["truth"], sample["points"]
        assert len(truth) == 4  # two objects, the third is too small, each pointed at twice
        assert torch.equal(truth[:2], truth[2:])
        for mask, (x, y) in zip(truth[:2], points[:2, 0].tolist(), strict=True):
            assert bool(mask[round(y + 0.5 - 0.5), round(x + 0.5 - 0.5)])
        rows, columns = np.nonzero(truth[2].numpy())
        left, top, right, bottom = points[2, :2].flatten().tolist()
        assert (left, right) == (columns.min() - 0.5, columns.max() + 0.5)
        assert (top, bottom) == (rows.min() - 0.5, rows.max() + 0.5)
        assert sample["labels"].tolist() == [[1, -1, -2]] * 2 + [[2, 3, -1]] * 2


def test_sam_keeps_the_aspect_and_its_masks_lie_on_the_picture(tmp_path: Path) -> None:
    subject = subject_for(tiny_sam())
    samples, _ = draw("real", subject, data=str(bsds(tmp_path)), count=2, held_out=1, seed=0)
    height = round(50 / 90 * 64)
    for sample in samples:
        assert not bool(sample["picture"][:, :, height:].any())
        assert not bool(sample["truth"][:, height:].any())
        assert bool(sample["truth"].any())


def test_noise_reads_nothing_and_is_the_same_for_the_same_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(*args: Any, **options: Any) -> Any:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Path, "read_bytes", opened)
    one, _ = draw("noise", SUBJECT, count=3, held_out=1, seed=5)
    same, _ = draw("noise", SUBJECT, count=3, held_out=1, seed=5)
    other, _ = draw("noise", SUBJECT, count=3, held_out=1, seed=6)
    assert torch.equal(one[0]["picture"], same[0]["picture"])
    assert not torch.equal(one[0]["picture"], other[0]["picture"])
    values = torch.cat([sample["picture"].flatten() for sample in one])
    assert float(values.mean().abs()) < 0.05
    assert float(values.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("make", [tiny_sam2, tiny_sam])
def test_noise_is_prompted_as_pictures_are(make: Callable[[], Any]) -> None:
    """A click in, and a box around, each of some ellipses, others in each picture."""
    subject = subject_for(make())
    samples, held_out = draw("noise", subject, count=3, held_out=1, seed=5)
    same, _ = draw("noise", subject, count=3, held_out=1, seed=5)
    for sample, again in zip(samples, same, strict=True):
        assert sample["labels"].tolist() == [[1, -1, -2]] * 3 + [[2, 3, -1]] * 3
        clicks, boxes = sample["points"][:3, 0], sample["points"][3:, :2]
        assert bool((clicks > boxes[:, 0]).all())
        assert bool((clicks < boxes[:, 1]).all())
        assert torch.equal(sample["points"], again["points"])
        assert "truth" not in sample
        assert len(subject.run(subject.net, sample)["masks"]) == 6
    points = [sample["points"] for sample in (*samples, *held_out)]
    assert not any(torch.equal(one, other) for one, other in pairwise(points))


def test_noise_for_event_networks_has_no_prompts() -> None:
    samples, _ = draw("noise", subject_for(SLTNet(6, width=4)), count=1, held_out=1, seed=0)
    assert set(samples[0]) == {"voxel"}


def test_of_few_pictures_a_quarter_judges_and_one_does_both(pictures: Path) -> None:
    samples, held_out = draw("real", SUBJECT, data=str(pictures), count=32, held_out=8, seed=0)
    assert (len(samples), len(held_out)) == (8, 2)
    assert not {id(s) for s in samples} & {id(s) for s in held_out}
    for path in sorted(pictures.iterdir())[1:]:
        path.unlink()
    samples, held_out = draw("real", SUBJECT, data=str(pictures), count=32, held_out=8, seed=0)
    assert len(samples) == len(held_out) == 1


def test_judges_are_of_all_parts_of_a_folder(pictures: Path) -> None:
    samples, held_out = draw("real", SUBJECT, data=str(pictures), count=6, held_out=2, seed=0)
    taken = SUBJECT.samples(open_pictures(str(pictures)).thinned(8))
    assert [number_of(each, taken) for each in held_out] == [2, 6]
    assert [number_of(each, taken) for each in samples] == [0, 1, 3, 4, 5, 7]


def number_of(sample: dict[str, Any], taken: list[Any]) -> int:
    (found,) = (i for i, t in enumerate(taken) if torch.equal(t["picture"], sample["picture"]))
    return found


def test_the_seed_draws_the_objects_that_are_pointed_at(tmp_path: Path) -> None:
    where = str(bsds(tmp_path, 5))

    def clicks(seed: int) -> torch.Tensor:
        drawn, _ = draw("real", SUBJECT, data=where, count=4, held_out=1, seed=seed)
        return torch.stack([sample["points"] for sample in drawn])

    assert torch.equal(clicks(3), clicks(3))
    assert any(not torch.equal(clicks(0), clicks(seed)) for seed in (1, 2, 3))


@pytest.mark.parametrize("count", [2, 3, 5, 9, 10])
def test_every_sample_calibrates_or_judges_and_none_does_both(pictures: Path, count: int) -> None:
    for path in sorted(pictures.iterdir())[count:]:
        path.unlink()
    samples, held_out = draw("real", SUBJECT, data=str(pictures), count=4, held_out=4, seed=0)
    assert len(held_out) == (4 if count >= 8 else 1)
    assert len(samples) == min(count, 8) - len(held_out)


def test_events_are_calibrated_with_streets_that_the_network_learned_from() -> None:
    subject: Any = subject_for(SLTNet(6, width=4, blocks=(0, 0, 1)))
    (sample,) = subject.windows("twin", 1)
    (given,) = subject.windows(twin(TRAINING_STREETS), 1)
    assert torch.equal(sample["voxel"], given["voxel"])
    assert sample["voxel"].shape[1] == 5
    assert set(subject.run(subject.net.eval(), sample)) == {"masks"}
    assert 0 <= subject.score(subject.net, [sample])["miou"] <= 1


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path, pictures: Path) -> None:
    def fails(kind: type[Exception], complaint: str, **options: Any) -> None:
        with pytest.raises(kind, match=complaint):
            draw(**{"source": "real", "count": 3, "held_out": 1, "seed": 0, **options})

    (tmp_path / "empty").mkdir()
    fails(DataError, "no such folder", subject=SUBJECT, data=str(tmp_path / "nowhere"))
    fails(DataError, "has no pictures", subject=SUBJECT, data=str(tmp_path / "empty"))
    fails(ConfigError, "where are they", subject=SUBJECT)
    fails(ConfigError, "unknown source 'reel'", subject=SUBJECT, source="reel")
    (pictures / "05.png").write_bytes(b"no picture")
    fails(DataError, "05.png", subject=SUBJECT, data=str(pictures), count=9)
    events = subject_for(SLTNet(6, width=8, blocks=(1, 1, 1)))
    fails(ConfigError, "no such folder", subject=events, data=str(tmp_path / "nowhere"))


def test_a_data_set_is_told_by_its_folders_or_by_name(tmp_path: Path) -> None:
    folder = bsds(tmp_path)
    assert len(open_pictures(str(folder))[0].maps) == 1
    assert len(open_pictures(f"bsds500:{folder}")) == 3
    assert open_pictures(str(folder / "images" / "train"))[0].maps == ()


def test_real_photographs(real: Callable[[str], Path]) -> None:
    shelf = open_pictures(str(real("bsds500"))).thinned(2)
    samples = SUBJECT.samples(shelf)
    assert all(bool(sample["truth"].flatten(1).any(1).all()) for sample in samples)


def test_scores_are_of_the_mask_a_user_gets_and_of_the_best_offered() -> None:
    truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    truth[:, :4] = True
    right, half = torch.full((8, 8), -1.0), torch.full((8, 8), -1.0)
    right[:4], half[:2] = 1, 1
    masks = torch.stack([half, half, right, half])[None].repeat(2, 1, 1, 1)
    sample = {"truth": truth, "labels": torch.tensor([[1.0, -1, -2], [2, 3, -1]])}
    rated_right = score_masks(masks, torch.tensor([[0.0, 0, 1, 0]] * 2), sample)
    assert rated_right == {
        "click_miou": [1.0],
        "click_best": [1.0],
        "box_miou": [0.5],
        "box_best": [1.0],
    }
    rated_wrong = score_masks(masks, torch.tensor([[9.0, 1, 0, 0]] * 2), sample)
    assert rated_wrong["click_miou"] == [0.5]
    assert score_masks(masks, torch.zeros(2, 4), {"labels": sample["labels"]}) == {}
