from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.errors import ModelError
from edgeperc.spiking import SpikingEngine
from edgeperc.spiking import engine as en
from edgeperc.spiking import potentials as po
from edgeperc.spiking import spikes as sp

torch = pytest.importorskip("torch")
F = torch.nn.functional

from edgeperc.offline.fold import fold  # noqa: E402
from edgeperc.offline.nets.sltnet import SLTNet  # noqa: E402
from edgeperc.offline.prune import prune  # noqa: E402
from edgeperc.offline.spiking_export import export_spiking  # noqa: E402

DATA = Path(__file__).parents[1] / "../shared/data"
HEIGHT, WIDTH, BINS = 40, 56, 5  # 40 / 8 is odd: the way up has to resize


def random_spikes(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return rng.random(shape) < rng.choice([0.0, 0.05, 0.5, 1.0])


def as_tensor(image: NDArray) -> torch.Tensor:
    """(H, W, C) -> (1, C, H, W) float64."""
    return torch.from_numpy(np.ascontiguousarray(image, np.float64)).permute(2, 0, 1)[None]


def as_image(tensor: torch.Tensor) -> NDArray:
    return tensor[0].permute(1, 2, 0).numpy()


def unpack(spikes: NDArray[np.uint32], channels: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(spikes.view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :channels].astype(bool)


def random_grid(rng: np.random.Generator, density: float) -> NDArray[np.float32]:
    """A voxel grid of which this share of pixels saw events, some of it in one corner only."""
    seen = rng.random((HEIGHT, WIDTH)) < density
    if rng.random() < 0.5:
        seen[HEIGHT // 2 :] = False
    bins = rng.random((BINS, HEIGHT, WIDTH)) < 0.6
    return (rng.standard_normal(bins.shape) * 2 * seen * bins).astype(np.float32)


def random_network(seed: int, *, width: int, blocks: tuple[int, int, int], bins: int = BINS):
    """A network with batch statistics of its own inputs, so that neurons in every layer fire."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = SLTNet(6, bins=bins, width=width, blocks=blocks)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
            torch.nn.init.normal_(layer.weight, 1.0, 0.3)
            torch.nn.init.normal_(layer.bias, 0.0, 0.3)
            layer.weight.data[::7] *= -1  # a negative scale turns a threshold round
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _ in range(4):
            grids = [np.resize(random_grid(rng, 0.3), (bins, HEIGHT, WIDTH)) for _ in range(2)]
            net.train()(torch.from_numpy(np.stack(grids)))
    return net.eval()


@pytest.fixture(scope="module")
def folded():
    return fold(random_network(0, width=32, blocks=(1, 1, 1)))


@pytest.fixture(scope="module")
def engine(folded, tmp_path_factory) -> SpikingEngine:
    return open_engine(folded, tmp_path_factory.mktemp("spiking"))


def open_engine(folded, folder: Path, threads: int = 1) -> SpikingEngine:
    (entry,) = export_spiking(folded, folder, "net", HEIGHT, WIDTH)
    return SpikingEngine(folder / entry.path, threads=threads)


def expected_labels(folded, grid: NDArray[np.float32]) -> NDArray:
    with torch.no_grad():
        return folded(torch.from_numpy(grid)[None])[0].argmax(0).numpy()


# --- kernels against dense convolutions in double precision ----------------------------------


@given(
    seed=st.integers(0, 2**32),
    channels=st.sampled_from([(3, 5), (16, 16), (32, 32), (40, 24), (64, 16), (128, 32)]),
    shape=st.sampled_from([(3, 3, 1), (3, 3, 2), (3, 1, 1), (1, 3, 1), (1, 1, 1)]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=60)
def test_convolution_of_spikes_is_a_convolution(seed, channels, shape, size) -> None:
    rng = np.random.default_rng(seed)
    (inputs, outputs), (kh, kw, stride) = channels, shape
    weight = rng.standard_normal((outputs, inputs, kh, kw)) / np.sqrt(inputs * kh * kw)
    bias = rng.standard_normal(outputs)
    fired = random_spikes(rng, (*size, inputs))
    conv = sp.convolution(weight, bias, stride=stride)
    expected = as_image(
        F.conv2d(
            as_tensor(fired), torch.from_numpy(weight), torch.from_numpy(bias), stride,
            (kh // 2, kw // 2),
        )
    )  # fmt: skip
    workers = en._Workers(1)
    potentials = en._convolve(en._bits(fired), conv, workers)
    np.testing.assert_allclose(potentials[..., :outputs], expected, atol=1e-5)
    assert not potentials[..., outputs:].any()
    spikes = unpack(en._convolve_and_fire(en._bits(fired), conv, workers), outputs)
    clear = np.abs(expected) > 1e-5
    np.testing.assert_array_equal(spikes[clear], expected[clear] > 0)


@given(seed=st.integers(0, 2**32), channels=st.sampled_from([4, 16, 40]), step=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_truth_tables_are_depthwise_convolutions(seed, channels, step) -> None:
    rng = np.random.default_rng(seed)
    fired = random_spikes(rng, (7, 9, channels))
    weight, bias = rng.standard_normal((channels, 3)), rng.standard_normal(channels)
    truth = en._depthwise_truth(weight, bias)
    for shape, direction in (((3, 1), (step, 0)), ((1, 3), (0, step))):
        expected = F.conv2d(
            as_tensor(fired), torch.from_numpy(weight.reshape(channels, 1, *shape)),
            torch.from_numpy(bias), padding=direction, dilation=step, groups=channels,
        )  # fmt: skip
        out = np.empty((7, 9, sp.words(channels)), np.uint32)
        sp.choose_along(en._bits(fired), direction, truth, out)
        np.testing.assert_array_equal(unpack(out, channels), as_image(expected) > 0)


@given(seed=st.integers(0, 2**32), channels=st.sampled_from([16, 40]))
@settings(deadline=None, max_examples=20)
def test_spikes_as_numbers(seed, channels) -> None:
    """Counting, adding chosen channels, and the gate over a pixel's channels."""
    rng = np.random.default_rng(seed)
    fired = random_spikes(rng, (6, 5, channels))
    spikes = en._bits(fired)
    np.testing.assert_allclose(en._channel_means(spikes, channels), fired.mean((0, 1)), rtol=1e-6)
    chosen = np.flatnonzero(rng.random(channels) < 0.5)
    out = np.ones((6, 5, channels + 3), np.float32)
    sp.add_spikes(spikes, sp.channels(chosen, spikes.shape[2]), 2, out)
    np.testing.assert_array_equal(out[..., 2 : 2 + chosen.size], 1 + fired[..., chosen])
    assert (out[..., 2 + chosen.size :] == 1).all()
    weight = rng.standard_normal((1, 2, 3, 3))
    planes = torch.stack([as_tensor(fired).mean(1), as_tensor(fired).amax(1)], 1)
    expected = torch.sigmoid(F.conv2d(planes, torch.from_numpy(weight), padding=1) + 0.3)
    gate = np.empty((6, 5), np.float32)
    sp.pixel_gate(spikes, channels, weight[0].astype(np.float32), 0.3, gate)
    np.testing.assert_allclose(gate, expected[0, 0], atol=1e-6)


@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 6), st.integers(1, 6)))
@settings(deadline=None, max_examples=20)
def test_upsampling_convolution_is_torchs(seed, size) -> None:
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((*size, 16)), rng.standard_normal((16, 24, 3, 3))
    bias = rng.standard_normal(24)
    expected = F.conv_transpose2d(
        as_tensor(x), torch.from_numpy(weight), torch.from_numpy(bias), 2, 1, 1
    )
    out = np.empty((2 * size[0], 2 * size[1], 32), np.float32)
    table = en._dense(weight.transpose(1, 0, 2, 3), bias)
    po.convolve_up(x.astype(np.float32), table, (0, out.shape[0]), out)
    np.testing.assert_allclose(out[..., :24], as_image(expected), atol=1e-4)


@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.1, 3.0, 300.0]))
@settings(deadline=None, max_examples=20)
def test_attention_is_a_sigmoid_of_a_product(seed, scale) -> None:
    rng = np.random.default_rng(seed)
    u, weight = rng.standard_normal((3, 4, 16)), rng.standard_normal((16, 16, 1, 1)) * scale
    bias, head_scale, head_shift = rng.standard_normal((3, 16))
    z = u @ weight[:, :, 0, 0].T + bias
    with np.errstate(over="ignore"):
        expected = head_scale * u / (1 + np.exp(-z)) + head_shift
    out = u.astype(np.float32)
    head = (head_scale.astype(np.float32), head_shift.astype(np.float32))
    po.attend(out, en._dense(weight, bias), head, (0, 3))
    # float32 knows z to a part in 1e7, and the sigmoid is steepest, 1/4, where z is small.
    np.testing.assert_allclose(out, expected, atol=2e-6 * max(scale, 1))


@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    wanted=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
@settings(deadline=None, max_examples=30)
def test_resizing_is_bilinear(seed, size, wanted) -> None:
    x = np.random.default_rng(seed).standard_normal((*size, 16)).astype(np.float32)
    expected = F.interpolate(as_tensor(x).float(), wanted, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(en._resized(x, *wanted), as_image(expected), atol=1e-5)


# --- the network -----------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), density=st.sampled_from([0.0, 0.002, 0.02, 0.2, 0.6, 1.0]))
@settings(deadline=None, max_examples=25)
def test_computing_only_where_events_are_changes_no_bit(engine, seed, density) -> None:
    grid = random_grid(np.random.default_rng(seed), density)
    stem = engine._stem
    stem(grid)
    sparse = [spikes.copy() for spikes in stem._spikes]
    for layer, spikes in enumerate(stem._spikes):
        stem._active[layer][:] = 1
        spikes[:] = 0xDEADBEEF
        stem._fire(layer)
    for some, every in zip(sparse, stem._spikes, strict=True):
        np.testing.assert_array_equal(some, every)


@given(seed=st.integers(0, 2**32), density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
@settings(deadline=None, max_examples=15)
def test_labels_are_the_folded_networks(engine, folded, seed, density) -> None:
    """On 99.9 % of the pixels: where float32 rounding decides, a spike may fall either way."""
    grid = random_grid(np.random.default_rng(seed), density)
    labels = engine.labels(grid)
    assert labels.dtype == np.uint8
    assert (labels == expected_labels(folded, grid)).mean() >= 0.999


@pytest.mark.parametrize(
    ("width", "blocks", "pruned"),
    [
        (8, (1, 0, 0), True),
        (16, (0, 1, 2), False),
        (24, (1, 1, 1), True),
        *(
            pytest.param(*sizes, pruned, marks=pytest.mark.slow)
            for sizes, pruned in (
                ((8, (1, 0, 0)), False),
                ((16, (0, 1, 2)), True),
                ((24, (1, 1, 1)), False),
            )
        ),
    ],
)
def test_networks_of_other_widths(tmp_path, width, blocks, pruned) -> None:
    net = random_network(1, width=width, blocks=blocks)
    with torch.no_grad():  # some neurons that never fire, for the pruner to find
        net.stage1[-1].bn.bias[:3] = -1e6
        net.stem[0].bn.bias[1] = -1e6
        net.up2.block.expand[0].bn.bias[:] = -1e6
        if blocks[0]:
            net.stage1[1].reduce[0].bn.bias[:2] = -1e6
            net.stage1[1].near[1].bn.bias[:] = -1e6
    folded = fold(net)
    if pruned:
        folded, removed = prune(folded)
        assert removed
    engine = open_engine(folded, tmp_path)
    rng = np.random.default_rng(2)
    for density in (0.02, 0.3, 1.0):
        grid = random_grid(rng, density)
        assert (engine.labels(grid) == expected_labels(folded, grid)).mean() >= 0.999


def test_threads_share_work_without_changing_it(folded, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(en, "_WORTH_WAKING", 0)
    engines = [open_engine(folded, tmp_path, threads) for threads in (1, 2, 3)]
    rng = np.random.default_rng(3)
    grids = [random_grid(rng, 0.2) for _ in range(12)]
    alone = [engines[0].labels(grid) for grid in grids]
    with ThreadPoolExecutor(2) as pool:  # two pipelines at once
        both = [pool.submit(lambda e=e: [e.labels(g) for g in grids]) for e in engines[1:]]
        for labels in both:
            np.testing.assert_array_equal(labels.result(), alone)


def test_what_does_not_fit_is_refused(engine, folded, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"network input is \(5, 8, 8\), expected \(5, 40, 56\)"):
        engine.labels(np.zeros((5, 8, 8), np.float32))
    with pytest.raises(ModelError, match="cannot be read"):
        SpikingEngine(tmp_path / "missing.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ModelError, match="cannot be read"):
        SpikingEngine(tmp_path / "torn.npz")
    np.savez(tmp_path / "old.npz", format=0)
    with pytest.raises(ModelError, match="not of format"):
        SpikingEngine(tmp_path / "old.npz")
    wide = fold(random_network(4, width=40, blocks=(0, 0, 0)))
    with pytest.raises(ModelError, match="20 channels before the classifier"):
        export_spiking(wide, tmp_path, "wide", HEIGHT, WIDTH)
