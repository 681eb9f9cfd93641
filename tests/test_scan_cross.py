"""The four-direction kernel against the plain composition of permutations and scans."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgeperc.offline.nets.selective_scan import sequential_scan  # noqa: E402
from edgeperc.scan.cross import cross_scan, walks  # noqa: E402


def case(height, width, features, rank, states, *, seed=0, scale=1.0):
    """Inputs of a scan of one plane, float32."""
    rng = np.random.default_rng(seed)
    shapes = {
        "u": (1, height, width, features),
        "projected": (1, height, width, 4 * (rank + 2 * states)),
        "step": (4, features, rank),
        "a": (4 * features, states),
        "skip": (4 * features,),
        "step_bias": (4, features),
    }
    made = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    made["a"] = -np.exp(made["a"])
    made["step_bias"] = (made["step_bias"] * scale).astype(np.float32)
    return made


def plain(u, projected, step, a, skip, step_bias):
    """The same in float64, pixel by pixel in the order of each walk."""
    _, height, width, features = u.shape
    rank, states = step.shape[2], a.shape[1]
    total = np.zeros(u.shape[1:])
    rows, columns = np.divmod(np.arange(height * width), width)
    orders = [np.arange(height * width), np.lexsort((rows, columns))]
    orders += [order[::-1] for order in orders]
    flat, given = (torch.from_numpy(x.reshape(height * width, -1)).double() for x in (u, projected))
    for k, order in enumerate(orders):
        first = 4 * rank + k * states
        b = given[:, first : first + states][order.copy()]
        c = given[:, first + 4 * states : first + 5 * states][order.copy()]
        low = given[:, k * rank : (k + 1) * rank][order.copy()]
        each = slice(k * features, (k + 1) * features)
        y = sequential_scan(
            flat[order.copy()].t()[None],
            (torch.from_numpy(step[k]).double() @ low.t())[None],
            torch.from_numpy(a[each]).double(),
            b.t()[None, None],
            c.t()[None, None],
            torch.from_numpy(skip[each]).double(),
            torch.from_numpy(step_bias[k]).double(),
            softplus=True,
        )[0]
        total.reshape(-1, features)[order] += y.t().numpy()
    return total[None]


def error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "sizes",
    [
        (5, 7, 16, 1, 1),
        (1, 1, 16, 1, 1),
        (1, 70, 16, 2, 1),
        (70, 1, 16, 2, 1),
        (9, 11, 20, 3, 4),
        (6, 5, 3, 1, 2),
        (13, 10, 48, 6, 16),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_agrees_with_permutations_and_plain_scans(sizes, scale):
    inputs = case(*sizes, scale=scale)
    assert error(cross_scan(**inputs), plain(**inputs)) < 1e-5


@pytest.mark.parametrize(
    "bias",
    [-3, -16, *(pytest.param(bias, marks=pytest.mark.slow) for bias in (-7, -12))],
)
def test_long_walks_of_tiny_steps_lose_nothing(bias):
    inputs = case(120, 110, 16, 1, 2, seed=1)
    inputs["step_bias"][:] = bias
    inputs["step"] *= np.float32(0.1)
    inputs["skip"][:] = 0
    inputs["step_bias"][:, ::2] = -2  # neighbours that forget fast
    found, expected = cross_scan(**inputs), plain(**inputs)
    off = np.abs(found - expected).max((0, 1, 2)) / np.abs(expected).max((0, 1, 2))
    assert off.max() < 1e-5  # of each channel's own largest


def test_threads_do_not_change_a_bit():
    inputs = case(12, 15, 48, 3, 2)
    assert np.array_equal(cross_scan(**inputs), cross_scan(**inputs, threads=3))


def test_planes_of_a_batch_do_not_mix():
    one, two = case(4, 6, 16, 1, 1, seed=1), case(4, 6, 16, 1, 1, seed=2)
    both = dict(one)
    for name in ("u", "projected"):
        both[name] = np.concatenate([one[name], two[name]])
    y = cross_scan(**both)
    assert np.array_equal(y[:1], cross_scan(**one))
    assert np.array_equal(y[1], cross_scan(**(one | {n: two[n] for n in ("u", "projected")}))[0])


def test_inputs_are_left_alone_and_may_lie_anyhow():
    inputs = case(5, 6, 16, 1, 1)
    before = {name: each.copy() for name, each in inputs.items()}
    turned = inputs | {"u": np.asfortranarray(inputs["u"])}
    assert np.array_equal(cross_scan(**turned), cross_scan(**inputs))
    assert all(np.array_equal(before[name], inputs[name]) for name in inputs)


@pytest.mark.parametrize("direction", range(4))
def test_each_walk_visits_each_pixel_once(direction):
    visited = walks(3, 5)[direction].tolist()
    assert sorted(visited) == list(range(15))
    assert visited[:2] == [[0, 1], [0, 5], [14, 13], [14, 9]][direction]


@pytest.mark.parametrize("name", ["projected", "step", "a", "skip", "step_bias"])
def test_shapes_that_do_not_fit_are_named(name):
    inputs = case(3, 4, 16, 2, 2)
    inputs[name] = inputs[name][..., :-1]
    if name in {"step", "a"}:
        inputs[name] = inputs[name][1:]
    with pytest.raises(ValueError, match="expected"):
        cross_scan(**inputs)
