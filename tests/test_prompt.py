from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeperc import prompt as public
from edgeperc.errors import DataError, ModelError
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.onnx_part import write_part
from edgeperc.offline.prompt_parts import parts
from edgeperc.packet import Stamp
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.prompt import ImageSession, Prompt, VideoSession, from_detections
from edgeperc.prompting.enlarge import to_picture
from edgeperc.result import Detections, ModelRef

from .tiny_promptable import card_of, exported, film, tiny_sam, tiny_sam2

IMAGE = film(1)[0]


@pytest.fixture(scope="module")
def sam2() -> Sam2:
    return tiny_sam2(1)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return tiny_sam()


@pytest.fixture(scope="module")
def folders(
    sam: Sam, sam2: Sam2, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ModelFolder]:
    root = tmp_path_factory.mktemp("models")
    video = exported(sam2, root / "video")
    table = card_of(sam2, "image").prompt
    image = ModelFolder(msgspec.structs.replace(video.card, prompt=table), video.folder)
    return {"sam": exported(sam, root / "sam"), "sam2": image, "video": video}


@pytest.fixture
def session(folders: dict[str, ModelFolder]) -> ImageSession:
    opened = ImageSession(folders["sam2"], threads=1)
    opened.look(IMAGE)
    return opened


def torch_answer(
    net: Sam | Sam2,
    points: list[list[float]],
    labels: list[float],
    mask: NDArray[np.float32] | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """masks (4, 16, 16), ious (4,), zoom. points in px of IMAGE."""
    make = Picture(card_of(net).input, smooth=True)
    picture = torch.from_numpy(make(IMAGE).copy())[None]
    at = torch.tensor([points], dtype=torch.float32).reshape(1, -1, 2)
    at = at * torch.from_numpy(make.zoom.astype(np.float32)) - 0.5
    given = None if mask is None else torch.from_numpy(mask)[None, None]
    with torch.no_grad():
        if isinstance(net, Sam):
            answer = net.decode(net.encode(picture), at, torch.tensor([labels]), given)
            return answer.masks[0].numpy(), answer.ious[0].numpy(), make.zoom
        features = net.encode(picture)
        embedding = net.without_memory(features.embedding)
        decoded = net.decode(embedding, features.high, at, torch.tensor([labels]), given)
        return decoded.masks[0].numpy(), decoded.ious[0].numpy(), make.zoom


@pytest.mark.parametrize("kind", ["sam", "sam2"])
@pytest.mark.parametrize("shown", ["a click", "clicks", "a box", "a box and a click", "logits"])
def test_a_prompt_is_answered_as_by_the_network_itself(
    sam: Sam, sam2: Sam2, folders: dict[str, ModelFolder], kind: str, shown: str
) -> None:
    net: Sam | Sam2 = sam if kind == "sam" else sam2
    session = ImageSession(folders[kind], threads=1)
    session.look(IMAGE)
    clicks, box = [[40.5, 20.5]], [[10.0, 5.0], [60.0, 45.0]]
    padding = [[0.5 / each for each in session._picture.zoom]]  # any place will do
    mask = None
    if shown == "clicks":
        clicks.append([70.0, 12.0])
    if shown == "logits":
        mask = np.random.default_rng(0).normal(0, 9, (16, 16)).astype(np.float32)
    points = clicks if "box" not in shown else box + (clicks if "click" in shown else [])
    labels = [1.0, 0.0][: len(clicks)] if "box" not in shown else [2.0, 3.0]
    labels = [*labels, 1.0] if shown == "a box and a click" else labels
    if kind == "sam2" or "box" not in shown:  # SAM has no padding beside a box
        points, labels = points + padding, [*labels, -1.0]
    masks, ious, zoom = torch_answer(net, points, labels, mask)
    prompt = Prompt(
        points=clicks if "click" in shown or shown == "logits" else np.empty((0, 2)),
        labels=[1, 0][: len(clicks)] if "click" in shown or shown == "logits" else None,
        box=np.ravel(box) if "box" in shown else None,
    )
    three = session.ask(prompt, all_masks=True, logits=mask)
    order = 1 + np.argsort(-ious[1:])
    np.testing.assert_allclose(three.logits, masks[order], atol=2e-4)
    np.testing.assert_allclose(three.scores, ious[order], atol=1e-5)
    for found, wanted in zip(three.masks, masks[order], strict=True):
        assert (found == to_picture(wanted, 90, 50, zoom)).mean() > 0.999
    one = session.ask(prompt, logits=mask)
    assert one.masks.shape == (1, 50, 90)
    best = order[0] if shown == "a click" else 0
    if best or kind == "sam":  # SAM 2 may fall back from an unstable first mask
        np.testing.assert_allclose(one.logits[0], masks[best], atol=2e-4)


def test_the_first_mask_of_sam_2_is_the_answer_only_while_it_is_stable(
    session: ImageSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt(points=[(40, 20), (10, 10)])
    three = session.ask(prompt, all_masks=True)
    monkeypatch.setattr("edgeperc.prompting.choose.STABLE", 0.0)
    first = session.ask(prompt)
    assert not any(np.array_equal(first.logits[0], each) for each in three.logits)
    monkeypatch.setattr("edgeperc.prompting.choose.STABLE", 1.1)
    np.testing.assert_array_equal(session.ask(prompt).logits[0], three.logits[0])


def test_a_drawn_mask_changes_the_answer_and_needs_no_points(session: ImageSession) -> None:
    drawn = np.zeros((50, 90), np.bool_)
    drawn[10:40, 20:60] = True
    alone, other = session.ask(Prompt(mask=drawn)), session.ask(Prompt(mask=~drawn))
    assert np.abs(alone.logits - other.logits).max() > 1e-3
    clicked = Prompt(points=[(40, 20)], mask=drawn)
    assert np.abs(session.ask(clicked).logits - alone.logits).max() > 1e-3


def test_an_image_of_a_video_model_is_answered_the_same(
    session: ImageSession, folders: dict[str, ModelFolder]
) -> None:
    other = ImageSession(folders["video"], threads=1)
    other.look(IMAGE)
    prompt = Prompt(points=[(40, 20)])
    np.testing.assert_array_equal(other.ask(prompt).masks, session.ask(prompt).masks)


def test_the_next_picture_may_have_another_size_and_be_grey(session: ImageSession) -> None:
    prompt = Prompt(points=[(40, 20)])
    before = session.ask(prompt)
    session.look(np.ascontiguousarray(IMAGE[:40, :77, 0]))
    assert session.ask(prompt).masks.shape == (1, 40, 77)
    session.look(IMAGE)
    np.testing.assert_array_equal(session.ask(prompt).masks, before.masks)


def test_nothing_is_asked_before_a_picture_is_there(folders: dict[str, ModelFolder]) -> None:
    session = ImageSession(folders["sam2"], threads=1)
    for ask in (lambda: session.ask(Prompt(points=[(1, 1)])), session.everything):
        with pytest.raises(ModelError, match="no picture") as caught:
            ask()
        assert "look" in caught.value.hint


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt(), "asks for nothing"),
        (Prompt(points=[(91, 20)]), r"point \(91, 20\) .* outside the picture of 90 × 50 px"),
        (Prompt(box=(50, 50, 50, 50)), "is empty"),
        (Prompt(points=np.ones((10_000, 2))), "has 10000 points, the model takes 15"),
        (Prompt(mask=np.ones((64, 64), np.bool_)), "has 64 × 64 px"),
    ],
)
def test_a_bad_prompt_is_refused_and_the_next_is_answered(
    session: ImageSession, prompt: Prompt, why: str
) -> None:
    with pytest.raises(DataError, match=why):
        session.ask(prompt)
    assert session.ask(Prompt(points=[(40, 20)])).masks.shape == (1, 50, 90)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"points": [(1, np.nan)]}, "points of a prompt: a number is not finite"),
        ({"points": [(1, np.inf)]}, "not finite"),
        ({"box": (1, 2, np.nan, 4)}, "box of a prompt: a number is not finite"),
        ({"box": (1, 2, 3)}, "must be 4 numbers"),
        ({"points": [(1, 2, 3)]}, r"\(1, 3\), must be \(N, 2\)"),
        ({"points": "here"}, "not an array of numbers"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "1 points and 2 labels"),
        ({"points": [(1, 2)], "labels": [2]}, r"1 \(on the object\) or 0"),
        ({"mask": np.ones((3, 3))}, r"float64 \(3, 3\), must be \(H, W\) bool"),
        ({"mask": np.ones((3, 3, 1), np.uint8)}, "must be"),
    ],
)
def test_what_is_no_prompt_cannot_be_made(keys: dict[str, object], why: str) -> None:
    with pytest.raises(DataError, match=why):
        Prompt(**keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.float32), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5), np.uint8)],
)
def test_what_is_no_picture_is_refused(session: ImageSession, image: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="a picture"):
        session.look(image)
    assert session.ask(Prompt(points=[(40, 20)])).masks.any() is not None


def test_logits_of_another_size_are_refused(session: ImageSession) -> None:
    with pytest.raises(DataError, match=r"\(3, 3\), the model has \(16, 16\)"):
        session.ask(Prompt(points=[(1, 1)]), logits=np.zeros((3, 3), np.float32))


def test_a_closed_session_frees_its_networks(folders: dict[str, ModelFolder]) -> None:
    session = ImageSession(folders["sam2"], threads=1)
    session.look(IMAGE)
    session.close()
    session.close()
    assert session._encoder._network.session._session is None
    assert session._decoder._network.session._session is None
    with pytest.raises(ModelError, match="closed"):
        session.look(IMAGE)


# --- folders that do not fit ---------------------------------------------------------------------


def without(folder: ModelFolder, role: str) -> ModelFolder:
    files = tuple(entry for entry in folder.card.files if entry.role != role)
    return ModelFolder(msgspec.structs.replace(folder.card, files=files), folder.folder)


def with_file_of(
    folder: ModelFolder, net: Sam2, role: str, beside: Path, **table: int
) -> ModelFolder:
    """A folder in which one file is of another network."""
    prompt = card_of(net, **table).prompt
    assert prompt is not None
    with torch.no_grad():
        part = next(part for part in parts(net, prompt) if part.role == role)
        entry, _ = write_part(part, beside)
    moved = msgspec.structs.replace(entry, path=str(beside / entry.path))
    files = tuple(moved if each.role == role else each for each in folder.card.files)
    return ModelFolder(msgspec.structs.replace(folder.card, files=files), folder.folder)


@pytest.mark.parametrize("role", ["encoder", "decoder", "memory_encoder", "memory_attention"])
def test_a_folder_without_a_file_says_which(folders: dict[str, ModelFolder], role: str) -> None:
    with pytest.raises(ModelError, match=f"has no file of role '{role}'"):
        VideoSession(without(folders["video"], role), threads=1)


def test_a_model_for_pictures_cannot_follow(folders: dict[str, ModelFolder]) -> None:
    for kind in ("sam", "sam2"):
        with pytest.raises(ModelError, match="is for single pictures") as caught:
            VideoSession(folders[kind], threads=1)
        assert 'kind = "video"' in caught.value.hint


def test_constants_that_are_not_there_are_missed(folders: dict[str, ModelFolder]) -> None:
    with pytest.raises(ModelError, match="its constants: .* missing"):
        VideoSession(without(folders["video"], "constants"), threads=1)
    with pytest.raises(ModelError, match="constant 'no_memory' is"):
        ImageSession(without(folders["sam2"], "constants"), threads=1)


def test_a_damaged_or_missing_file_is_refused(
    folders: dict[str, ModelFolder], tmp_path: Path
) -> None:
    shutil.copytree(folders["sam2"].folder, tmp_path / "m")
    folder = ModelFolder(folders["sam2"].card, tmp_path / "m")
    path = tmp_path / "m" / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"decoder.onnx: sha256 is not the one"):
        ImageSession(folder, threads=1)
    path.unlink()
    with pytest.raises(ModelError, match=r"decoder.onnx: no such file"):
        ImageSession(folder, threads=1)


LARGER = {"picture_px": 128, "windows": (8, 4, 4, 2)}


@pytest.mark.parametrize(
    ("role", "options", "table", "why"),
    [
        ("decoder", {"width": 64}, {}, "'embedding' is"),
        ("decoder", {}, {"points": 8}, "'points' is"),
        ("memory_encoder", LARGER, {}, "'embedding' is"),
        ("memory_encoder", {"memory_width": 32}, {}, "'memory' is"),
        ("memory_attention", {}, {"prompt_frames": 3}, "'memory' is"),
        ("encoder", LARGER, {}, "'picture' is"),
    ],
)
def test_files_of_different_exports_are_told_apart_on_opening(
    folders: dict[str, ModelFolder],
    tmp_path: Path,
    role: str,
    options: dict[str, Any],
    table: dict[str, int],
    why: str,
) -> None:
    mixed = with_file_of(folders["video"], tiny_sam2(1, **options), role, tmp_path, **table)
    with pytest.raises(ModelError, match=why):
        VideoSession(mixed, threads=1)


def test_a_detector_takes_no_prompts(folders: dict[str, ModelFolder]) -> None:
    card = msgspec.structs.replace(folders["sam2"].card, task="detection")
    for opening in (ImageSession, VideoSession):
        with pytest.raises(ModelError, match="does detection, it takes no prompts"):
            opening(ModelFolder(card, folders["sam2"].folder), threads=1)


# --- beside --------------------------------------------------------------------------------------


def test_detections_become_prompts_within_the_picture() -> None:
    boxes = np.array([[-5, 2, 30, 95], [1, 1, 1, 9], [np.nan, 0, 1, 1], [4, 5, 6, 7]], np.float32)
    found = Detections(
        stamp=Stamp(source="a", seq=0, start_ns=0, end_ns=1),
        boxes=boxes,
        scores=np.ones(4, np.float32),
        class_ids=np.zeros(4, np.int64),
        classes=("a",),
        model=ModelRef(name="m"),
        picture_px=(60, 50),
    )
    prompts = from_detections(found)
    assert [None if each.box is None else each.box.tolist() for each in prompts] == [
        [0, 2, 30, 50],
        [4, 5, 6, 7],
    ]
    for each in prompts:
        each.check(60, 50)


def test_the_public_names_are_there() -> None:
    assert all(hasattr(public, name) for name in public.__all__)
