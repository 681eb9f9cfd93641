"""A float network in INT8 as OpenVINO's own tool makes it: NNCF's post-training quantization.

    python -m edgeperc.bench.openvino_nncf float.onnx nncf.xml     # in an environment that has NNCF

`made` starts that there, unless the file is there already. Noise is what it is calibrated on, as
our own file is: for speed alone. NNCF is told that it is a transformer, and takes its defaults
otherwise: INT8 weights per channel, and it decides itself what stays in float.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeperc.errors import ModelError

SAMPLES = 2


def made(python: Path, network: Path, out: Path) -> Path:
    """`out`, written by the Python of an environment that has NNCF. Raises ModelError."""
    if out.is_file():
        return out
    call = [str(python), "-m", "edgeperc.bench.openvino_nncf", str(network), str(out)]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"NNCF makes nothing of {network}: {said}")
    return out


def quantize(network: Path, out: Path) -> None:
    """Write the network in OpenVINO's format: `out`, an .xml, and the .bin beside it. The former is
    there when both are whole.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(str(network))
    rng = np.random.default_rng(0)
    samples = [
        {
            each.any_name: rng.normal(size=tuple(each.shape)).astype(np.float32)
            for each in model.inputs
        }
        for _ in range(SAMPLES)
    ]
    made = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=SAMPLES,
        model_type=nncf.ModelType.TRANSFORMER,
    )
    part = out.with_name(f"part-{out.name}")
    openvino.save_model(made, str(part), compress_to_fp16=False)
    part.with_suffix(".bin").replace(out.with_suffix(".bin"))
    part.replace(out)


def main(arguments: Sequence[str]) -> None:
    """`python -m edgeperc.bench.openvino_nncf FILE OUT`."""
    quantize(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
