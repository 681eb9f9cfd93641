"""Checkpoints are data: what tensors and numbers survive, and that nothing else ever runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import Weights, read_checkpoint
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_keys import NEVER_CALLED, load_sltnet, published_modules

MODELS = Path(__file__).parents[2] / "shared" / "data" / "models"
OFFICIAL = [MODELS / "sltnet_ddd17_official.pth", MODELS / "sltnet_dsec_official.pth"]
needs_official = pytest.mark.skipif(not OFFICIAL[0].exists(), reason="official weights not here")

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_as_they_were_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    base = (torch.arange(24) % 7).reshape(4, 6).to(dtype)
    state = {
        "whole": base,
        "column": base[1:, 2],
        "turned": base.T,
        "none": base[:0],
        "one": base[2, 3],
    }
    read = read_checkpoint(save(tmp_path / "a.pth", state)).state
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor)


def test_numbers_beside_the_weights_are_kept_numpys_too(tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "best_miou": np.float64(0.25),
        "steps": np.int64(7),
        "model": torch.nn.Linear(2, 2).state_dict(),
        "history": [np.float64(0.5)],
        "note": "text",
    }
    weights = read_checkpoint(save(tmp_path / "a.pth", content))
    assert weights.record == {"epoch": 3, "best_miou": 0.25, "steps": 7}
    assert set(weights.state) == {"weight", "bias"}


@pytest.mark.parametrize("blocks", [(3, 3, 3), (0, 1, 2), (0, 0, 0)])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state": state, "step": 1}])
def test_a_network_that_we_trained_is_rebuilt_from_its_weights(
    tmp_path: Path, blocks: tuple[int, int, int], wrap: Callable[[Any], Any]
) -> None:
    net = SLTNet(4, bins=3, width=8, blocks=blocks).eval()
    state = net.to(memory_format=torch.channels_last).state_dict()  # type: ignore[call-overload]
    read = load_sltnet(read_checkpoint(save(tmp_path / "a.pth", wrap(state)))).state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], value) for key, value in state.items())


class Calls:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"model": {"w": evil}}])
@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open({!r}, 'w')",)),
        (exec, ("open({!r}, 'w')",)),
        (os.mkdir, ("{}",)),
        (np.fromfile, ("{}",)),
        (pickle.loads, (b"\x80\x04N.",)),
        (getattr, ("text", "upper")),
    ],
)
def test_a_pickle_that_calls_a_function_is_refused_before_it_runs(
    tmp_path: Path, wrap: Callable[[Any], Any], function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    trace = tmp_path / "ran"
    args = tuple(a.format(str(trace)) if isinstance(a, str) else a for a in args)
    path = save(tmp_path / "evil.pth", wrap(Calls(function, *args)))
    with pytest.raises(ModelError, match="refused, because it asks for"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cposix\nsystem\n(S'touch TRACE'\ntR.",  # GLOBAL, REDUCE
        b"(S'touch TRACE'\niposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nS'touch TRACE'\no.",  # OBJ
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch TRACE\x85R.",  # STACK_GLOBAL
        b"ctorch\nload\n(S'TRACE'\ntR.",
        b"ctorch._utils\n_rebuild_parameter\n(tR.",
        b"ccollections\nOrderedDict.__init__\n(tR.",
    ],
)
def test_no_opcode_reaches_a_foreign_name(
    tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    with pytest.raises(ModelError, match="refused, because it asks for"):
        read_checkpoint(path)
    assert not (tmp_path / "TRACE").exists()


def _legacy(path: Path) -> None:
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


def _zip(path: Path, name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\x80\x02"), "not a PyTorch checkpoint"),
        (lambda path: path.write_text("<html>404</html>"), "not a PyTorch checkpoint"),
        (_legacy, "before PyTorch 1.6"),
        (lambda path: path.write_bytes(pickle.dumps({"w": 1})), "not a PyTorch checkpoint"),
        (lambda path: _zip(path, "readme.txt", b"hello"), "no data.pkl"),
        (lambda path: _zip(path, "a/data.pkl", b"N.", zipfile.ZIP_DEFLATED), "compressed"),
        (lambda path: _zip(path, "a/data.pkl", b"garbage"), "damaged"),
        (lambda path: save(path, [1, 2, 3]), "no table of named tensors"),
        (lambda path: save(path, {}), "no table of named tensors"),
        (lambda path: save(path, {"model": {"w": "text"}}), "no table of named tensors"),
        (lambda path: save(path, {"model": {3: torch.ones(1)}}), "no table of named tensors"),
    ],
)
def test_what_is_no_checkpoint_is_one_clear_error(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "wrong.pth"
    write(path)
    with pytest.raises(ModelError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def _saved_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": {f"layer{i}": torch.arange(20.0) + i for i in range(3)}}, buffer)
    return buffer.getvalue()


SAVED = _saved_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, len(SAVED) - 1))
def test_a_truncated_file_is_an_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(SAVED[:cut])
    with pytest.raises(ModelError):
        read_checkpoint(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(SAVED) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    tmp_path: Path, position: int, bit: int
) -> None:
    data = bytearray(SAVED)
    data[position] ^= 1 << bit
    path = tmp_path / "flipped.pth"
    path.write_bytes(data)
    try:
        state = read_checkpoint(path).state
    except ModelError:
        return
    assert all(torch.equal(state[f"layer{i}"], torch.arange(20.0) + i) for i in range(3))


# The published layout.


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A random network under the published names, without data from elsewhere."""
    torch.manual_seed(0)
    own = SLTNet(6).state_dict()
    names = {ours: theirs for theirs, ours in published_modules().items()}
    state = {}
    for key, value in own.items():
        module, _, leaf = key.rpartition(".")
        state[f"{names[module]}.{leaf}"] = (
            value.squeeze(-1) if ".mlp.fc" in names[module] else value
        )
    return {**state, "PA1.conv.weight": torch.ones(1), "upsample_2.bn.bias": torch.ones(1)}


def weights(state: dict[str, torch.Tensor]) -> Weights:
    return Weights(state, sha256="0" * 64, bytes=1)


def test_published_names_cover_the_network(published: dict[str, torch.Tensor]) -> None:
    net = load_sltnet(weights(published))
    torch.manual_seed(0)
    for ours, expected in zip(
        net.state_dict().values(), SLTNet(6).state_dict().values(), strict=True
    ):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    "key",
    ["init_conv.0.conv.weight", "FE2.bn.running_var", "transformer2.attn1.k_conv.1.bias"],
)
def test_a_missing_key_is_named(published: dict[str, torch.Tensor], key: str) -> None:
    with pytest.raises(ModelError, match=f"lacks {key}"):
        load_sltnet(weights({k: v for k, v in published.items() if k != key}))


@pytest.mark.parametrize(
    "key", ["LC4.dconv3x1.conv.weight", "init_conv.0.conv.bias", "PA4.conv.bias"]
)
def test_an_unknown_key_is_named(published: dict[str, torch.Tensor], key: str) -> None:
    with pytest.raises(ModelError, match=f"unknown key {key}"):
        load_sltnet(weights({**published, key: torch.ones(1)}))


def test_a_wrong_shape_and_a_nan_are_named(published: dict[str, torch.Tensor]) -> None:
    key = "PA3.conv.weight"
    with pytest.raises(ModelError, match=r"PA3.conv.weight is \(2, 2, 1, 1\)"):
        load_sltnet(weights({**published, key: torch.ones(2, 2, 1, 1)}))
    with pytest.raises(ModelError, match="PA3.conv.weight .*not finite"):
        load_sltnet(weights({**published, key: torch.full((16, 16, 1, 1), torch.nan)}))


@needs_official
@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_official_files_are_read_and_every_key_is_accounted_for(path: Path) -> None:
    weights = read_checkpoint(path)
    assert len(weights.state) == 1340
    assert 0.4 < weights.record["best_miou"] < 0.51
    used = {k for k in weights.state if k.rpartition(".")[0] in published_modules()}
    skipped = {k for k in weights.state if NEVER_CALLED.match(k)}
    assert used | skipped == weights.state.keys()
    assert not used & skipped
    assert sum(p.numel() for p in load_sltnet(weights).parameters()) in (368_932, 369_012)
