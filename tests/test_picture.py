from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.picture import Picture


def picture(represent: str, *, smooth: bool = False, **options: object) -> Picture:
    spec = {"width_px": 64, "height_px": 32, **options}
    card = Input(kind="frame", represent=represent, **spec)  # type: ignore[arg-type]
    return Picture(card, smooth=smooth)


def random_image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_stretched_pixels_are_resized_ordered_and_scaled(channels: str) -> None:
    image = random_image(50, 70, 3)
    image.flags.writeable = False
    make = picture("stretch", channels=channels, mean=(10, 20, 30), std=(2, 4, 8))
    tensor = make(image)
    expected = cv2.resize(image, (64, 32)).astype(np.float32)
    expected = expected[..., ::-1] if channels == "bgr" else expected
    expected = (expected - [10, 20, 30]) / [2, 4, 8]
    np.testing.assert_allclose(tensor, expected.transpose(2, 0, 1), atol=1e-4)
    assert (tensor.dtype, tensor.flags.writeable) == (np.float32, False)


def test_a_fitted_picture_is_padded_with_grey_right_or_below() -> None:
    make = picture("fit", std=(1,))
    wide = make(np.full((10, 64, 3), 7, np.uint8))
    assert (wide[:, :10] == 7).all()
    assert (wide[:, 10:] == 114).all()
    tall = make(np.full((64, 32, 3), 9, np.uint8))
    assert (tall[:, :, :16] == 9).all()
    assert (tall[:, :, 16:] == 114).all()


def test_a_native_picture_keeps_its_pixels_and_grows_to_a_multiple_of_32() -> None:
    image = random_image(33, 40)
    tensor = picture("native", channels="grey", std=(1,))(image)
    assert tensor.shape == (1, 64, 64)
    np.testing.assert_array_equal(tensor[0, :33, :40], image)
    np.testing.assert_array_equal(tensor[0, :33, 40:], np.repeat(image[:, -1:], 24, 1))
    np.testing.assert_array_equal(tensor[0, 33:], np.repeat(tensor[0, 32:33], 31, 0))


def test_grey_becomes_colour_and_colour_becomes_grey() -> None:
    grey = random_image(32, 64)
    np.testing.assert_allclose(
        picture("stretch")(grey), np.broadcast_to(grey / np.float32(255), (3, 32, 64)), atol=1e-6
    )
    colour = random_image(32, 64, 3)
    np.testing.assert_allclose(
        picture("stretch", channels="grey")(colour)[0],
        cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY) / np.float32(255),
        atol=1e-6,
    )


@pytest.mark.parametrize("represent", ["stretch", "fit", "native"])
def test_boxes_find_their_way_back(represent: str) -> None:
    """A white block in the picture is where its box in the network says, within a network pixel."""
    image = np.zeros((96, 128), np.uint8)
    image[24:60, 40:100] = 255
    make = picture(represent, channels="grey")
    rows, columns = np.nonzero(make(image)[0] > 0.6)
    inside = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    back = make.to_frame(inside)
    np.testing.assert_allclose(back, [[40, 24, 100, 60]], atol=1 / make.zoom.min())
    ratio = make.variance_to_frame(np.ones((1, 4), np.float32)) * np.tile(make.zoom, 2) ** 2
    np.testing.assert_allclose(ratio, 1, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("represent", ["stretch", "fit", "native"])
def test_labels_find_their_way_back(represent: str, stride: int) -> None:
    image = np.zeros((64, 128), np.uint8)
    image[16:48, 64:] = 255
    make = picture(represent, channels="grey")
    tensor = make(image)[0]
    labels = (tensor[stride // 2 :: stride, stride // 2 :: stride] > 0.5).astype(np.uint8)
    np.testing.assert_array_equal(make.labels_to_sensor(labels), image // 255)


def test_each_size_has_its_own_buffers() -> None:
    make = picture("fit", std=(1,))
    make(np.full((32, 64, 3), 200, np.uint8))
    again = make(np.full((16, 64, 3), 100, np.uint8))
    assert (again[:, 16:] == 114).all()  # nothing is left of the larger one


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown way 'voxel-grid'"):
        picture("voxel-grid")
    with pytest.raises(ModelError, match="mean and std need 1 or 3 values"):
        picture("stretch", mean=(1, 2))
    with pytest.raises(ModelError, match="4 × 0 px has no pixels"):
        picture("stretch")(np.zeros((0, 4), np.uint8))


def test_the_longest_side_is_kept_and_zeros_after_the_norm_fill_the_rest_up() -> None:
    make = picture("longest", width_px=64, height_px=64, mean=(100,), std=(2,))
    tensor = make(np.full((50, 101, 3), 104, np.uint8))
    assert (tensor[:, :32] == 2).all()  # 50 * 64 / 101 is 31.7
    assert (tensor[:, 32:] == 0).all()
    np.testing.assert_allclose(make.zoom, [64 / 101, 32 / 50])


@pytest.mark.parametrize("represent", ["stretch", "longest"])
def test_a_smooth_picture_does_not_alias(represent: str) -> None:
    """Noise is grey from afar, and an edge stays where it is."""
    make, noise = picture(represent, std=(1,), smooth=True), random_image(300, 640)
    assert make(noise)[:, :28].std() < 15
    assert picture(represent, std=(1,))(noise)[:, :28].std() > 30
    halves = np.repeat([[10, 200]], 320, axis=1).repeat(300, axis=0).astype(np.uint8)
    seen = make(halves)[0, :28]
    assert (seen[:, :31] == 10).all()
    assert (seen[:, 33:] == 200).all()
    np.testing.assert_allclose(make.zoom, [64 / 640, seen.shape[0] / 300], atol=0.02)


def test_a_picture_of_less_than_twice_the_size_is_the_same_smooth_or_not() -> None:
    image = random_image(63, 127, 3)
    sharp, smooth = picture("stretch"), picture("stretch", smooth=True)
    np.testing.assert_array_equal(sharp(image), smooth(image))
