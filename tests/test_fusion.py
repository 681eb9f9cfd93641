"""A pair to a network's two inputs, and the network's labels back."""

import dataclasses

import msgspec
import numpy as np
import pytest

from edgeperc.config import FrameInput, Input, ModelCard
from edgeperc.errors import ModelError
from edgeperc.fusion import FusionInput, FusionSegmenter
from edgeperc.packet import Events, Frame, Pair, Stamp
from edgeperc.places import ModelFolder

STAMP = Stamp(source="dvs", seq=3, start_ns=5, end_ns=9)
WIDTH, HEIGHT = 44, 36


def card(represent="voxel-grid", files=(), **frames):
    return ModelCard(
        name="small",
        task="semantic",
        summary="",
        licence="",
        source="",
        classes=("a", "b", "c"),
        input=Input(
            kind="events",
            represent=represent,
            width_px=WIDTH,
            height_px=HEIGHT,
            bins=2,
            window_us=50_000,
        ),
        frames=FrameInput(**frames),
        files=files,
    )


def events(x=(), y=(), *, width=WIDTH, height=HEIGHT):
    return Events(
        stamp=STAMP,
        t=np.arange(len(x), dtype=np.int64),
        x=np.array(x, np.uint16),
        y=np.array(y, np.uint16),
        p=np.ones(len(x), np.bool_),
        width_px=width,
        height_px=height,
    )


def pair(image, found=None):
    frame = None if image is None else Frame(stamp=STAMP, image=image)
    return Pair(stamp=STAMP, frame=frame, events=events() if found is None else found)


def picture(seed=0, shape=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_frame_is_normalised_pixel_by_pixel_and_padded_with_zeros():
    step = FusionInput(WIDTH, HEIGHT, card(mean=(100.0,), std=(50.0,)))
    image = picture()
    frame, voxels = step(pair(image))
    assert frame.shape == (1, 40, 48)
    assert voxels.shape == step.shape == (2, 40, 48)
    expected = (image.astype(np.float32) - 100) / 50
    assert np.allclose(frame[0, :HEIGHT, :WIDTH], expected, atol=1e-5)
    assert not frame[0, HEIGHT:].any()
    assert not frame[0, :, WIDTH:].any()
    assert not voxels.any()


@pytest.mark.parametrize(
    ("represent", "width", "height"), [("voxel-grid", 44, 36), ("sltnet-ddd17", 346, 260)]
)
def test_a_spot_is_at_the_same_place_in_frame_and_events(represent, width, height):
    step = FusionInput(width, height, card(represent))
    for x, y in ((10, 20), (width // 2, height // 2), (width - 1, 0)):
        image = np.zeros((height, width), np.uint8)
        image[y, x] = 255
        # A second event of the other sign elsewhere, so that normalising leaves the first above.
        seen = events([x, 5], [y, height * 3 // 4], width=width, height=height)
        seen = dataclasses.replace(seen, p=np.array([True, False]))
        frame, voxels = step(pair(image, seen))
        grid = np.clip(voxels, 0, None).sum(0)
        assert np.array_equal(np.argwhere(frame[0] > 1e-6), np.argwhere(grid > 1e-6))
        assert np.allclose(frame[0] / frame[0].sum(), grid / grid.sum(), atol=1e-5)


def test_without_a_frame_its_tensor_is_zeros_and_the_next_frame_is_whole():
    step = FusionInput(WIDTH, HEIGHT, card(mean=(100.0,), std=(50.0,)))
    first = step(pair(picture()))[0].copy()
    assert not step(pair(None))[0].any()
    assert np.array_equal(step(pair(picture()))[0], first)


def test_colours_come_in_the_order_of_the_card_and_grey_becomes_three():
    image = picture(shape=(HEIGHT, WIDTH, 3))
    for channels, order in (("rgb", (0, 1, 2)), ("bgr", (2, 1, 0))):
        step = FusionInput(WIDTH, HEIGHT, card(channels=channels))
        frame = step(pair(image))[0][:, :HEIGHT, :WIDTH]
        assert np.allclose(frame * 255, image[..., order].transpose(2, 0, 1), atol=1e-3)
    grey = step(pair(picture()))[0]
    assert np.array_equal(grey[0], grey[2])
    assert FusionInput(WIDTH, HEIGHT, card())(pair(image))[0].shape[0] == 1


def test_sizes_that_differ_are_both_named():
    step = FusionInput(WIDTH, HEIGHT, card())
    with pytest.raises(ModelError, match="frame is 40 × 30 px, the events are 44 × 36 px"):
        step(pair(picture(shape=(30, 40))))


def test_cards_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match=r"no \[frames\]"):
        FusionInput(WIDTH, HEIGHT, msgspec.structs.replace(card(), frames=None))
    with pytest.raises(ModelError, match="unknown recipe 'spiral'"):
        FusionInput(WIDTH, HEIGHT, card("spiral"))
    with pytest.raises(ModelError, match="need 1 or 1 values"):
        FusionInput(WIDTH, HEIGHT, card(mean=(1.0, 2.0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network with random weights in a model folder."""
    torch = pytest.importorskip("torch")
    from edgeperc.offline.export import file_entry
    from edgeperc.offline.export_fusion import export_onnx
    from edgeperc.offline.nets.mambaseg import MambaSeg, MambaSegConfig

    torch.manual_seed(0)
    config = MambaSegConfig(
        classes=3,
        frame_channels=1,
        bins=2,
        widths=(16, 16, 16, 16),
        depths=(1, 1, 1, 1),
        mlp_ratio=1.0,
        fusion_states=1,
        fusion_ratio=1.0,
        head_width=8,
    )
    folder = tmp_path_factory.mktemp("model")
    export_onnx(MambaSeg(config).eval(), folder / "small.onnx", 40, 48)
    return ModelFolder(card(files=(file_entry(folder / "small.onnx", "network"),)), folder)


def test_pair_becomes_a_label_map_in_both_ways(model):
    cut = FusionSegmenter(model, threads=1)
    whole = FusionSegmenter(model, threads=1, whole=True)
    asked = pair(picture(), events([1, 7, 30], [2, 9, 33]))
    one, two = cut(asked), whole(asked)
    assert one.stamp == STAMP
    assert one.labels.shape == (HEIGHT, WIDTH)
    assert one.labels.max() < 3
    assert (one.labels == two.labels).mean() > 0.99
    assert one.model.engine != two.model.engine
    assert one.model.sha256 == model.card.files[0].sha256
    assert cut(pair(None)).labels.shape == (HEIGHT, WIDTH)


def test_labels_follow_both_inputs(model):
    segmenter = FusionSegmenter(model, threads=1)
    step = FusionInput(WIDTH, HEIGHT, model.card)

    def logits(image, found):
        return segmenter.logits(*step(pair(image, found))).copy()

    seen = events(range(40), [5 + n % 20 for n in range(40)])
    both = logits(picture(), seen)
    assert np.abs(both - logits(picture(1), seen)).max() > 1e-4
    assert np.abs(both - logits(picture(), events())).max() > 1e-4


def test_frames_or_events_alone_are_refused(model):
    segmenter = FusionSegmenter(model, threads=1)
    with pytest.raises(ModelError, match="takes pairs of a frame and events, got events alone"):
        segmenter(events())
    with pytest.raises(ModelError, match="got a frame alone"):
        segmenter(Frame(stamp=STAMP, image=picture()))


def test_damaged_file_is_refused_by_its_hash(model, tmp_path):
    content = (model.folder / "small.onnx").read_bytes()
    (tmp_path / "small.onnx").write_bytes(content[:-1] + b"?")
    with pytest.raises(ModelError, match="sha256"):
        FusionSegmenter(ModelFolder(model.card, tmp_path), threads=1)


def test_trained_weights_become_a_model_folder_that_runs(tmp_path):
    torch = pytest.importorskip("torch")
    from edgeperc.offline.export_fusion import export_trained
    from edgeperc.offline.nets.mambaseg import MambaSeg, MambaSegConfig
    from edgeperc.places import find_model

    config = MambaSegConfig(
        classes=3,
        frame_channels=1,
        bins=2,
        widths=(16, 16, 16, 16),
        depths=(1, 1, 1, 1),
        fusion_states=1,
        head_width=8,
    )
    torch.save(MambaSeg(config).state_dict(), tmp_path / "weights.pt")
    report = export_trained(card(), tmp_path / "weights.pt", tmp_path / "out")
    assert report.agreement.same_labels > 0.99
    assert "parameters" in report.summary()
    model = find_model(str(tmp_path / "out"))
    assert FusionSegmenter(model, threads=1)(pair(picture())).labels.shape == (HEIGHT, WIDTH)
    other = msgspec.structs.replace(card(), classes=("a", "b"))
    with pytest.raises(ModelError, match=r"3 classes, 2 bins .* 'small' says 2, 2 and 1"):
        export_trained(other, tmp_path / "weights.pt", tmp_path / "no")
    assert not (tmp_path / "no").exists()
