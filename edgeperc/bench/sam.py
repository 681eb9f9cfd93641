"""Promptable networks of the published sizes: how fast, and how much faster with Efficient-SAM2.

Random weights, so speed alone; 1024 px, one object. Every part runs in a process of its own, with
the same threads; what is compared takes turns, A B B A. Targets: Zhang et al., ICLR 2026, against
their own whole network on a GPU, as ours are against our own whole network here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeperc import places
from edgeperc.bench.figures import Figures
from edgeperc.bench.sam_worker import KEEP_SHARE, WINDOW_SHARE
from edgeperc.bench.timing import Comparison, compare, median_ms
from edgeperc.errors import ConfigError, EdgepercError

SIZES = {"bplus": "SAM 2.1 B+", "l": "SAM 2.1 L"}
ENCODERS = {"vitb": "SAM ViT-B", "hiera_t": "SAM 2.1 Hiera-T", "mobilesam": "MobileSAM"}
VIDEO_AIMS = {"bplus": 1.74, "l": 1.68}
MODEL = "promptable"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. only: keys, all of them if empty. folder: where networks are kept for the
    next run; a temporary one if None. data: a folder with `davis` in it.
    """

    only: tuple[str, ...] = ()
    threads: int = 1
    rounds: int = 3
    folder: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Timed:
    """A pair. Names are those of the rows of the table."""

    speedup: float
    before_ms: float
    after_ms: float


class Bench:
    """Builds networks once, times pairs of their parts once, and remembers both."""

    def __init__(self, figures: Figures, settings: Settings, folder: Path) -> None:
        self.figures, self.settings, self._folder = figures, settings, folder
        self._pairs: dict[tuple[str, ...], Timed] = {}
        self._rows: list[dict[str, str]] = []
        self._alone: dict[tuple[str, str], float] = {}
        self._peak = 0.0

    def pair(self, before: tuple[str, str], after: tuple[str, str]) -> Timed:
        """(network, part) twice, the second against the first."""
        key = (*before, *after)
        if key not in self._pairs:
            with ExitStack() as stack:
                calls = [stack.enter_context(self._worker(*each)) for each in (before, after)]
                self.figures.progress(f"{before[0]}: {after[1]} against {before[1]}")
                compared = compare(*calls, rounds=self.settings.rounds, baseline_reps=1, reps=1)
            self._pairs[key] = self._note(before, after, compared)
        return self._pairs[key]

    def close(self) -> None:
        """Show a table of what was timed."""
        if self._rows:
            self.figures.tables.append(("Parts", self._rows))

    def _note(self, before: tuple[str, str], after: tuple[str, str], compared: Comparison) -> Timed:
        (pair,) = compared.pairs
        timed = Timed(pair.speedup, compared.baseline_ms, pair.median_ms)
        if not compared.steady:
            self.figures.note(f"{before[0]}: {before[1]} took uneven times, its ratios are rough.")
        for (network, part), ms in ((before, timed.before_ms), (after, timed.after_ms)):
            self._row(network, part, ms)
        return timed

    def alone_ms(self, network: str, part: str) -> float:
        """Median time of a part that is the same either way."""
        if (network, part) not in self._alone:
            with self._worker(network, part) as call:
                self.figures.progress(f"{network}: {part}")
                ms = median_ms(call, reps=2 * self.settings.rounds)
            self._alone[network, part] = ms
            self._row(network, part, ms)
        return self._alone[network, part]

    def _row(self, network: str, part: str, ms: float) -> None:
        gflop = self._gflop(network, part)
        rate = 1e3 * gflop / ms
        self.figures.detail(f"{network}_{part}_ms", ms)
        self.figures.detail(f"{network}_{part}_gflop", gflop)
        self._rows.append(
            {
                "network": network,
                "part": part,
                "ms": f"{ms:,.0f}",
                "GFLOP": f"{gflop:,.0f}",
                "GFLOP/s": f"{rate:,.0f}",
                "of peak": f"{100 * rate / self.peak:.0f} %",
            }
        )

    @property
    def peak(self) -> float:
        """GFLOP/s of the best product of matrices, with as many threads."""
        if not self._peak:
            self.figures.progress("the best product of matrices")
            module = "edgeperc.bench.sam_worker"
            with self._process([module, "gemm", "-", str(self.settings.threads)]) as call:
                self._peak = max(float(str(call())) for _ in range(3))
            self.figures.add(
                "gemm_gflops",
                self._peak,
                f"best product in numpy, threads: {self.settings.threads}",
            )
        return self._peak

    def _gflop(self, network: str, part: str) -> float:
        """Operations of a part, by the files that it runs."""
        if network.startswith("torch_"):
            network = f"encoder_{network.removeprefix('torch_')}"
        content = (self._folder / network / "operations.json").read_bytes()
        operations: dict[str, float] = json.loads(content)
        roles = {
            "eager": ["encoder"],
            "dense_encoder": ["encoder"],
            "routed_encoder": ["encoder_head", "encoder_middle", "encoder_tail"],
            "dense_memory": ["memory_attention"],
            "pruned_memory": ["memory_retrieval"],
        }.get(part, [part])
        return sum(operations[role] for role in roles)

    @contextmanager
    def _worker(self, network: str, part: str) -> Iterator[Callable[[], object]]:
        threads = str(self.settings.threads)
        if network.startswith("torch_"):
            name = network.removeprefix("torch_")
            arguments = ["edgeperc.offline.bench_networks", "torch", name, threads]
        else:
            folder = self._built(network)
            arguments = ["edgeperc.bench.sam_worker", part, str(folder), threads]
        with self._process(arguments) as call:
            yield call

    def _built(self, network: str) -> Path:
        folder = self._folder / network
        if not (folder / "operations.json").exists():
            self.figures.progress(f"{network}: exporting it")
            build = ["edgeperc.offline.bench_networks", "build", network, str(folder)]
            done = subprocess.run(
                [sys.executable, "-m", *build],
                check=False,
                capture_output=True,
                text=True,
                env=self._env,
            )
            if done.returncode:
                raise ConfigError(f"{network} cannot be made: {_last_line(done.stderr)}")
        return folder

    @contextmanager
    def _process(self, arguments: list[str]) -> Iterator[Callable[[], object]]:
        """A process that runs something once when called."""
        with subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr

            def call() -> object:
                try:
                    process.stdin.write("\n")  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
                except BrokenPipeError:
                    pass
                answer = process.stdout.readline()  # type: ignore[union-attr]
                if not answer:
                    process.wait()
                    said = _last_line(process.stderr.read())  # type: ignore[union-attr]
                    raise ConfigError(f"{' '.join(arguments)} ended: {said}")
                return answer

            try:
                yield call
            finally:
                process.kill()

    @property
    def _env(self) -> dict[str, str]:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return os.environ | dict.fromkeys(names, str(self.settings.threads))


def measure(figures: Figures, recording: Path | None, settings: Settings = Settings()) -> None:
    """Fill figures. Raises ConfigError for an unknown key, or a network that cannot be made."""
    if unknown := [key for key in settings.only if key not in KEYS]:
        raise ConfigError(f"unknown figure '{unknown[0]}'", hint=f"known are: {', '.join(KEYS)}")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(figures, settings, settings.folder or Path(scratch))
        for key, (fill, which) in KEYS.items():
            if not settings.only or key in settings.only:
                fill(bench, key, which)
        bench.close()


def _encoder(bench: Bench, key: str, which: str) -> None:
    timed = bench.pair((f"torch_{which}", "eager"), (f"encoder_{which}", "encoder"))
    bench.figures.add(key, timed.speedup, f"{ENCODERS[which]}: onnxruntime, times eager torch")


def _smr(bench: Bench, key: str, which: str) -> None:
    timed = bench.pair(("memory", "dense_memory"), ("memory", "pruned_memory"))
    what = f"{SIZES[which]}: memory attention, 7 frames, {KEEP_SHARE:g} kept of the 5 older ones"
    bench.figures.add(key, timed.speedup, f"{what}; B+ and L have the same", aim=1.8)


def _swr(bench: Bench, key: str, which: str) -> None:
    timed = bench.pair(*_encoders(which))
    what = f"{SIZES[which]}: encoder, {WINDOW_SHARE:g} of the windows"
    bench.figures.add(key, timed.speedup, f"{what} (FLOPs.py of Efficient-SAM2)", aim=1.7)


def _video(bench: Bench, key: str, which: str) -> None:
    """A frame of one object: encoder, memory attention, decoder, memory encoder, one by one."""
    encoder = bench.pair(*_encoders(which))
    memory = bench.pair(("memory", "dense_memory"), ("memory", "pruned_memory"))
    decoder = bench.pair(("memory", "decoder"), ("memory", "decoder_salient"))
    keep_ms = bench.alone_ms("memory", "memory_encoder")
    before = keep_ms + sum(timed.before_ms for timed in (encoder, memory, decoder))
    after = keep_ms + sum(timed.after_ms for timed in (encoder, memory, decoder))
    what = f"{SIZES[which]}: {before:,.0f} ms a frame, then {after:,.0f}; the sum of its parts"
    bench.figures.add(key, before / after, what, aim=VIDEO_AIMS[which])


def _encoders(which: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"encoder_{which}", "dense_encoder"), (f"routed_{which}", "routed_encoder")


def _davis(bench: Bench, key: str, which: str) -> None:
    """J&F of our own model on the part of DAVIS that it has not seen."""
    from edgeperc.prompt import Efficient

    data = bench.settings.data
    folder = None if data is None else data / "davis"
    if folder is None or not folder.is_dir():
        bench.figures.note(f"{key}: left out, --data names no folder with davis in it")
        return
    try:
        model = places.find_model(MODEL)
        scoring = _scoring()
        choice = (
            Efficient(window_routing=True, memory_keep_share=KEEP_SHARE)
            if which == "efficient"
            else Efficient(window_routing=False, memory_keep_share=1.0)
        )
        found = scoring.evaluate_video(
            model,
            folder,
            threads=bench.settings.threads,
            efficient=choice,
            on_frame=lambda done, total: bench.figures.progress(f"{key}: frame {done} of {total}"),
        )
    except (EdgepercError, ModuleNotFoundError) as error:
        bench.figures.note(f"{key}: left out: {error}")
        return
    bench.figures.add(key, found.j_and_f, f"J&F of {MODEL}, {which}, held-out part of DAVIS")


def _scoring() -> Any:
    import importlib

    return importlib.import_module("edgeperc.offline.evaluate_video")


def _around(bench: Bench, key: str, which: str) -> None:
    from edgeperc.bench.around import around_ms_1080p

    bench.figures.progress("what is around the networks")
    found = around_ms_1080p()
    parts = (
        f"picture {found.picture_ms:.1f}, masks {found.masks_ms:.1f}, packed {found.pack_ms:.1f}"
    )
    bench.figures.add(
        key, found.total_ms, f"ms of a full HD frame, 3 objects, no networks: {parts}"
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


KEYS: dict[str, tuple[Callable[[Bench, str, str], None], str]] = {
    **{f"encoder_ort_vs_torch_{which}": (_encoder, which) for which in ENCODERS},
    **{f"smr_speedup_{which}": (_smr, which) for which in SIZES},
    **{f"swr_speedup_{which}": (_swr, which) for which in SIZES},
    **{f"video_speedup_{which}": (_video, which) for which in SIZES},
    "davis_jf_dense": (_davis, "dense"),
    "davis_jf_efficient": (_davis, "efficient"),
    "around_ms_1080p": (_around, ""),
}
"""Key -> what fills it, and of which network."""
