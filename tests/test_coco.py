from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.offline.coco import drawn, open_coco

HEIGHT, WIDTH = 24, 32
COORDINATES = st.one_of(st.integers(-3, 35).map(float), st.floats(-3, 35, width=32))
POLYGONS = st.lists(
    st.lists(COORDINATES, min_size=6, max_size=16).map(lambda xs: xs[: len(xs) // 2 * 2]),
    min_size=1,
    max_size=2,
)


def write(folder: Path, annotations: list[dict[str, Any]], name: str = "street.png") -> Path:
    content = {
        "images": [{"id": 7, "file_name": name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 9, "name": "car"}, {"id": 3, "name": "person"}],
        "annotations": [{"id": k, "image_id": 7, **a} for k, a in enumerate(annotations)],
    }
    path = folder / "instances_val.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")
@settings(deadline=None)
@given(polygons=POLYGONS)
def test_polygons_become_the_pixels_of_pycocotools(polygons: list[list[float]]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, HEIGHT, WIDTH)))
    found = drawn([np.array(p).reshape(-1, 2) for p in polygons], HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, expected)


def test_boxes_classes_areas_and_masks_are_read(tmp_path: Path) -> None:
    on = np.zeros((HEIGHT, WIDTH), np.bool_)
    on[3:9, 4:20] = True
    polygon = [[4, 3, 20, 3, 20, 9, 4, 9]]
    path = write(
        tmp_path,
        [
            {"bbox": [4, 3, 16, 6], "category_id": 9, "segmentation": polygon, "area": 50},
            {
                "bbox": [4, 3, 16, 6],
                "category_id": 3,
                "segmentation": masks.to_coco(masks.encode(on)),
                "iscrowd": 1,
            },
        ],
    )
    truth = open_coco(path)
    (picture,) = truth.pictures
    assert truth.classes == ("person", "car")
    assert truth.has_masks
    assert picture.class_ids.tolist() == [1, 0]
    assert picture.boxes.tolist() == [[4, 3, 20, 9]] * 2
    assert picture.areas.tolist() == [50, 96]
    assert picture.crowd.tolist() == [False, True]
    for mask in picture.masks():
        np.testing.assert_array_equal(masks.decode(mask), on)


def test_without_masks_there_are_boxes(tmp_path: Path) -> None:
    assert not open_coco(write(tmp_path, [{"bbox": [0, 0, 4, 4], "category_id": 3}])).has_masks
    empty = open_coco(write(tmp_path, []))
    assert empty.pictures[0].boxes.shape == (0, 4)


@pytest.mark.parametrize("where", [".", "images", "val", "../val", "../images"])
def test_pictures_are_looked_for_where_they_usually_are(tmp_path: Path, where: str) -> None:
    (tmp_path / "annotations").mkdir()
    folder = tmp_path / "annotations" / where
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "street.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    path = write(tmp_path / "annotations", [])
    assert open_coco(path).pictures[0].read().shape == (HEIGHT, WIDTH, 3)


def test_a_longer_name_will_do_if_it_is_the_only_one(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    cv2.imwrite(str(tmp_path / "set_street.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert open_coco(path).pictures[0].read().shape == (HEIGHT, WIDTH, 3)
    cv2.imwrite(str(tmp_path / "other_street.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"its picture street\.png is not in"):
        open_coco(path).pictures[0].read()


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    cv2.imwrite(str(tmp_path / "street.png"), np.zeros((HEIGHT, 10, 3), np.uint8))
    with pytest.raises(DataError, match="10 × 24 px, the json says 32 × 24"):
        open_coco(path).pictures[0].read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "no JSON"),
        ("[]", "not a COCO json"),
        ('{"images": [], "categories": []}', "not a COCO json: KeyError 'annotations'"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1}]}',
            "not a COCO json: KeyError 1",
        ),
    ],
)
def test_damaged_files_say_what_is_wrong(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match="No such file"):
        open_coco(path)
    path.write_text(content)
    with pytest.raises(DataError, match=reason):
        open_coco(path)


@pytest.mark.parametrize("segmentation", [[["a", 1]], [[1, 2, 3]], {"size": [4], "counts": "1"}])
def test_damaged_masks_are_data_errors(tmp_path: Path, segmentation: Any) -> None:
    annotation = {"bbox": [0, 0, 4, 4], "category_id": 3, "segmentation": segmentation}
    with pytest.raises(DataError):
        open_coco(write(tmp_path, [annotation])).pictures[0].masks()


def test_the_shared_pictures(real: Callable[[str], Path]) -> None:
    truth = open_coco(real("images/sahi_terrain2_coco.json"))
    (picture,) = truth.pictures
    assert truth.classes == ("car",)
    assert picture.read().shape == (682, 1024, 3)
    for mask, box in zip(picture.masks(), picture.boxes, strict=True):
        np.testing.assert_allclose(masks.box(mask), box, atol=1)
