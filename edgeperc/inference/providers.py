"""Which of onnxruntime's providers run a network: their names here, options, and what to install.

wanted = chosen(["openvino", "cpu"])              # as a pipeline's `providers`
wanted = chosen([ProviderTable(name="openvino", precision="bf16"), "cpu"])
wanted = chosen(())                               # what this build has, best first
providers = [(each.execution, each.options(threads=2)) for each in wanted]
why_not("TensorrtExecutionProvider")              # in onnxruntime's own words
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import onnxruntime as ort

from edgeperc.config import PipelineTable, ProviderName, ProviderTable
from edgeperc.errors import ConfigError, ModelError

Providers: TypeAlias = Sequence[str | ProviderTable]
"""Names or tables, first to last. Empty: what this build of onnxruntime has, best first."""

BEST_FIRST: tuple[str, ...] = get_args(ProviderName)
_EXECUTION = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_PRECISIONS = {
    "tensorrt": ("f32", "f16", "int8"),
    "cuda": ("f32",),
    "openvino": ("f32", "f16", "bf16"),
    "cpu": ("f32",),
}
_OPTIONS = {
    "tensorrt": (
        "device_id",
        "trt_auxiliary_streams",
        "trt_bf16_enable",
        "trt_build_heuristics_enable",
        "trt_builder_optimization_level",
        "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable",
        "trt_detailed_build_log",
        "trt_dla_core",
        "trt_dla_enable",
        "trt_force_sequential_engine_build",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_op_types_to_exclude",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_tactic_sources",
    ),
    "cuda": (
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "device_id",
        "enable_cuda_graph",
        "gpu_mem_limit",
        "prefer_nhwc",
        "use_tf32",
    ),
}
"""What `options` may say: nothing that names a file or a library, nothing that we say ourselves."""
_INSTALL = {
    "tensorrt": "it comes with onnxruntime-gpu in place of onnxruntime, and wants CUDA, TensorRT",
    "cuda": "it comes with onnxruntime-gpu in place of onnxruntime, and wants CUDA, cuDNN",
    "openvino": "it comes with onnxruntime-openvino in place of onnxruntime, and wants its device: "
    "see docs/openvino.md",
    "cpu": "every onnxruntime has it; install onnxruntime anew",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """One of onnxruntime's providers, with what is asked of it."""

    table: ProviderTable

    @property
    def execution(self) -> str:
        """What onnxruntime calls it."""
        return _EXECUTION[self.table.name]

    @property
    def install(self) -> str:
        """What to do where it is not there or does not start."""
        return _INSTALL[self.table.name]

    @property
    def precision(self) -> str:
        """What floats are computed in, as results name it."""
        return {"f32": "fp32", "f16": "fp16"}.get(self.table.precision, self.table.precision)

    def options(self, *, threads: int) -> dict[str, str]:
        """Its options in onnxruntime.

        OpenVINO is told the precision whatever it is: on processors that can, it takes bf16 of its
        own accord. It takes an unknown one without a word, therefore `chosen` knows them all.
        """
        if self.table.name == "openvino":
            device, precision = self.table.device, self.table.precision
            hints = {device: {"INFERENCE_PRECISION_HINT": precision}}
            given = {"device_type": device, "load_config": json.dumps(hints)}
            return {**given, "num_of_threads": str(threads)} if device == "CPU" else given
        if self.table.name == "tensorrt":
            return {
                "trt_fp16_enable": str(self.table.precision != "f32"),
                "trt_int8_enable": str(self.table.precision == "int8"),
                **self._more,
            }
        return self._more

    @property
    def _more(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.table.options.items()}


def asked(table: PipelineTable) -> Providers:
    """A pipeline's providers, `require` among them. Raises ConfigError if the two disagree.

    What must run the network comes first; where the pipeline names no others, they take what it
    cannot.
    """
    if table.require is None:
        return table.providers
    if not table.providers:
        there = ort.get_available_providers()
        behind = ("cuda", "cpu") if table.require == "tensorrt" else ("cpu",)
        return tuple(
            name
            for name in dict.fromkeys((table.require, *behind))
            if name == table.require or _EXECUTION[name] in there
        )
    first = table.providers[0]
    name = first.name if isinstance(first, ProviderTable) else first
    if name != table.require:
        raise ConfigError(
            f"require: is '{table.require}', but providers begin with '{name}'",
            hint=f"put '{table.require}' first, or leave one of the two keys out",
        )
    return table.providers


def why_not(execution: str) -> str:
    """Why a provider does not start, in onnxruntime's own words; "" if it does, or nobody knows.

    Tried on a network of one operator, in a process of its own: onnxruntime says such a thing to
    nobody but the terminal. Takes about a second.
    """
    call = [sys.executable, "-c", _TRY, execution, _IDENTITY]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it was not there in time: {error}" if "timed out" in str(error) else ""
    if done.returncode == 0 and done.stdout.split() == [execution]:
        return ""
    if done.returncode < 0:
        return f"it ends the process by signal {-done.returncode}"
    if library := re.search(r"with error: (.*)", done.stderr):
        return library[1].strip()
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else ""


_LONGEST = 300
_TRY = """
import sys, onnxruntime as ort
if sys.argv[1] not in ort.get_available_providers():
    sys.exit("it is not in this build of onnxruntime")
session = ort.InferenceSession(
    bytes.fromhex(sys.argv[2]), providers=[sys.argv[1]], enable_fallback=0)
print(session.get_providers()[0])
"""
_IDENTITY = (
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f"
    "0a0179120a0a08080112040a02080142040a00100d"
)
"""A network y = x of one float, as ONNX."""


def chosen(providers: Providers) -> list[Provider]:
    """What an app's `providers` stand for. Raises ConfigError for what cannot be meant, ModelError
    if this build of onnxruntime has not what is asked for.
    """
    there = ort.get_available_providers()
    if not providers:
        tables = [ProviderTable(name=name) for name in BEST_FIRST]  # type: ignore[arg-type]
        return [each for each in map(Provider, tables) if each.execution in there]
    wanted = [Provider(_table(each)) for each in providers]
    names = [each.table.name for each in wanted]
    for number, each in enumerate(wanted):
        _check(each)
        if each.table.name in names[:number]:
            raise ConfigError(f"providers: '{each.table.name}' is there twice")
        if "cpu" in names[:number]:
            raise ConfigError(
                f"providers: '{each.table.name}' comes after 'cpu', which leaves it nothing",
                hint="put 'cpu' last",
            )
        if each.execution not in there:
            has = ", ".join(name for name, full in _EXECUTION.items() if full in there)
            raise ModelError(
                f"provider '{each.table.name}': this onnxruntime ({ort.__version__}) has {has}",
                hint=each.install,
            )
    return wanted


def _table(provider: str | ProviderTable) -> ProviderTable:
    if isinstance(provider, ProviderTable):
        return provider
    if provider not in BEST_FIRST:
        known = ", ".join(BEST_FIRST)
        raise ConfigError(f"providers: unknown provider '{provider}'", hint=f"known are: {known}")
    return ProviderTable(name=provider)  # type: ignore[arg-type]


def _check(provider: Provider) -> None:
    table = provider.table
    if table.precision not in _PRECISIONS[table.name]:
        can = ", ".join(_PRECISIONS[table.name])
        raise ConfigError(
            f"providers: '{table.name}' does not compute in {table.precision}",
            hint=f"precision is one of: {can}; of an INT8 network, it is that of the rest",
        )
    if (table.precision, table.device) == ("f16", "CPU") and table.name == "openvino":
        raise ConfigError(
            "providers: 'openvino' computes in f16 on GPU and NPU, not on CPU",
            hint='name a device, or take "bf16"',
        )
    if table.device != "CPU" and table.name != "openvino":
        raise ConfigError(f"providers: device is for 'openvino', not '{table.name}'")
    known = _OPTIONS.get(table.name, ())
    for name in table.options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"providers: '{table.name}' takes no option '{name}'{guess}",
                hint=f"it takes: {', '.join(known)}" if known else "options are of tensorrt, cuda",
            )
    if (table.precision, table.device) == ("bf16", "CPU") and not _cpu_has_bf16():
        raise ModelError(
            "provider 'openvino': this processor has no bf16, it would compute in f32",
            hint='leave precision = "bf16" out',
        )


def _cpu_has_bf16() -> bool:
    """Whether /proc/cpuinfo says so; where there is no such file, nobody knows."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
