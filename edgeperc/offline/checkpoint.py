"""Read a PyTorch checkpoint as data: tensors, numbers, strings and containers, nothing else.

A .pth file is a zip of raw tensor storages and one pickle, and a pickle may call any function.
Here each name in the pickle is looked up in a table of our own stand-ins, so that a foreign
function is refused before it runs. torch's `weights_only` loader does the same, but refuses the
published SLTNet files for the numpy scalars in their training record.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.places import sha256

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_OLD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""Start of a file that PyTorch wrote before 1.6: a pickle of its magic number."""


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds.

    state: parameter name -> tensor, on the CPU; the whole file or its entry `state` or `model`.
    record: numbers beside the weights, such as `best_miou`.
    """

    state: dict[str, Tensor]
    sha256: str
    bytes: int
    record: dict[str, float] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Weights:
    """Read a .pth or .pt file without running anything it names.

    Raises ModelError if the file is missing, empty, damaged, not a checkpoint, or names anything
    but tensors and plain values.
    """
    try:
        size, digest = path.stat().st_size, sha256(path)
        with path.open("rb") as file:
            start = file.read(len(_OLD))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    if not size:
        raise ModelError(f"{path}: the file is empty", hint="Download the checkpoint again.")
    content = _unpickle(path, start)
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in ("state", "model") if key in content), content)
    if not _is_state(state):
        raise ModelError(f"{path}: holds no table of named tensors")
    record = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, int | float)}
    return Weights(dict(state), digest, size, record)


def _is_state(state: Any) -> bool:
    return (
        isinstance(state, dict)
        and len(state) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    )


def _unpickle(path: Path, start: bytes) -> Any:
    """The pickle of a file that begins with `start`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, path).load()
    except ModelError:
        raise
    except zipfile.BadZipFile as error:
        if start == _OLD:
            raise ModelError(
                f"{path}: refused, because it is of the layout before PyTorch 1.6, a bare pickle",
                hint="If you trust it: torch.save(torch.load(OLD, weights_only=True), NEW)",
            ) from None
        if start.startswith(b"PK"):
            raise ModelError(
                f"{path}: the file is damaged or cut short ({error})",
                hint="Download the checkpoint again and compare its sha256 with the model card.",
            ) from None
        raise ModelError(f"{path}: not a PyTorch checkpoint (no zip archive)") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(f"{path}: damaged checkpoint ({type(error).__name__}: {error})") from None


class _Reader(pickle.Unpickler):
    """The pickle of one archive, with our stand-ins for every name it may use."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ModelError(f"{path}: not a PyTorch checkpoint (no data.pkl in the archive)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ModelError(f"{path}: not a PyTorch checkpoint (its entries are compressed)")
        self._archive = archive
        self._path = path
        self._root = names[0].removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        super().__init__(io.BytesIO(archive.read(names[0])), encoding="utf-8")

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in _STAND_INS:
            raise ModelError(
                f"{self._path}: refused, because it asks for {module}.{name}",
                hint="Only tensors and plain values are read; save the state_dict alone.",
            )
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any, /) -> Tensor:
        kind, dtype, key, _device, _count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


# The stand-ins take no defaults and keep no state: nothing a pickle could change between loads.


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return storage.as_strided(size, stride, offset).contiguous()


class _NumpyType:
    """Stands in for numpy.dtype: the type string, and the byte order that follows it."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.code = ("" if order == "|" else order) + self.code


def _numpy_scalar(kind: _NumpyType, data: bytes) -> float | int | bool:
    if not isinstance(kind.code, str) or (dtype := np.dtype(kind.code)).kind not in "fiub":
        raise pickle.UnpicklingError(f"numpy scalar of type {kind.code}")
    value: float | int | bool = np.frombuffer(data, dtype, count=1)[0].item()
    return value


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in {codec!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("numpy", "dtype"): _NumpyType,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("_codecs", "encode"): _encode,
}
