"""The verb bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgeperc.cli.offline import offline
from edgeperc.cli.root import app
from edgeperc.errors import ConfigError


@app.command()
def bench(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="[SUITE]",
            help="Which figures: events, search, calibration, sam, compress, compress-accuracy, "
            "fusion, fusion-accuracy, serve, faults, soak, processes.",
        ),
    ] = "events",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write them here.")] = None,
    recording: Annotated[
        Path | None, typer.Option(help="events: measure on its windows instead of the twin's.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="A-B",
            help="search: worlds to search in; as --weights, and fusion-accuracy: how many.",
        ),
    ] = None,
    targets: Annotated[int | None, typer.Option(help="search: how many there are.")] = None,
    pd: Annotated[
        float | None, typer.Option(help="search: how probably a look detects a target.")
    ] = None,
    slot_ms: Annotated[
        float | None, typer.Option(help="search: time between looks; 0 as fast as it goes.")
    ] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="search: compare this one, too; may be repeated.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="search: draw found-over-time curves into this PNG.")
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="search: also on the twin, in real time.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="search --realtime: each run, 60 by default; soak: 1800; faults: then also leave "
            "a daemon alone for so long, for soak_growth.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="sam, compress, fusion, faults: this alone; may be repeated."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="sam, compress: A B B A so often.")
    ] = None,
    networks: Annotated[
        Path | None,
        typer.Option(
            help="sam, compress: keep the exported networks in this folder; fusion-accuracy: train "
            "them there; out/fusion-accuracy by default."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="sam: folder with davis in it, for J&F; compress, compress-accuracy: and bsds500."
        ),
    ] = None,
    openvino_venv: Annotated[
        Path | None, typer.Option(help="compress: an environment with OpenVINO, to run in as well.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="compress, compress-accuracy: what `edgeperc train` wrote.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option(min=2, help="as --weights: how many to score on; 200 by default.")
    ] = None,
) -> None:
    """Measure speed, as ratios within one run, or how well schedulers search."""
    from edgeperc.bench import run

    if own := _own_settings(suite, weights, data, networks, only, seeds, pictures, seconds):
        run(suite, json_file, **own)
        return
    accuracy = None
    if suite == "compress" and weights:
        from edgeperc.bench.compress_accuracy import KEYS

        if mine := [key for key in only or KEYS if key in KEYS]:
            accuracy = _accuracy(weights, data, networks, mine, seeds, pictures)
        data = seeds = None
    elif weights or pictures:
        name = "weights" if weights else "pictures"
        raise ConfigError(f"--{name} is for bench compress (with --weights) and compress-accuracy")
    chosen: dict[str, Any] = {
        **_first_and_last(seeds),
        **({"schedulers": tuple(scheduler)} if scheduler else {}),
        **{"targets": targets, "pd": pd, "slot_ms": slot_ms, "plot": plot},
        **({"realtime_s": seconds or 60.0} if realtime or seconds else {}),
    }
    chosen = {key: value for key, value in chosen.items() if value is not None}
    sam_only: dict[str, Any] = {
        "only": tuple(only or ()),
        "rounds": rounds,
        "folder": networks,
        "data": data,
    }
    sam_only = {key: value for key, value in sam_only.items() if value}
    if openvino_venv is not None:
        if suite != "compress":
            raise ConfigError("--openvino-venv is for bench compress")
        sam_only["openvino_venv"] = openvino_venv
    if suite == "sam" and not chosen:
        from edgeperc.bench import sam

        run(suite, json_file, settings=sam.Settings(**sam_only))
        return
    if suite == "compress" and not chosen:
        from edgeperc.bench import compress

        if data is not None:
            raise ConfigError("bench compress --data needs --weights, what is measured on it")
        run(suite, json_file, settings=compress.Settings(**sam_only, accuracy=accuracy))
        return
    if sam_only:
        name = {"folder": "networks"}.get(next(iter(sam_only)), next(iter(sam_only)))
        others = {"only": ", compress-accuracy, fusion and faults"}.get(name, " and compress")
        raise ConfigError(f"--{name} is for bench sam{others}")
    if suite != "search":
        if chosen:
            raise ConfigError(f"--{next(iter(chosen)).replace('_', '-')} is for bench search")
        run(suite, json_file, recording=recording)
        return
    from edgeperc.bench.search_compare import Settings

    run(suite, json_file, recording=recording, settings=Settings(**chosen))


def _own_settings(
    suite: str,
    weights: Path | None,
    data: Path | None,
    folder: Path | None,
    only: list[str] | None,
    seeds: str | None,
    pictures: int | None,
    seconds: float | None,
) -> dict[str, Any]:
    """Arguments of suites that share nothing with the others; none for these."""
    if suite == "compress-accuracy":
        return {"settings": _accuracy(weights, data, folder, only, seeds, pictures)}
    if suite == "fusion-accuracy":
        return {"settings": _fusion_accuracy(folder, seeds)}
    if suite == "soak":
        return {"seconds": seconds}
    given = {"only": tuple(only)} if suite in ("fusion", "faults", "processes") and only else {}
    return {**given, "soak_s": seconds} if suite == "faults" and seconds else given


def _accuracy(
    weights: Path | None,
    data: Path | None,
    folder: Path | None,
    only: list[str] | None,
    seeds: str | None,
    pictures: int | None,
) -> Any:
    """Settings of the suite, its cells filled under progress bars."""
    if weights is None or data is None:
        raise ConfigError(
            f"accuracy needs --{'data' if weights else 'weights'}",
            hint="--weights FILE of `edgeperc train promptable`, --data FOLDER with its pictures",
        )
    accuracy, bars = offline("bench_accuracy"), offline("training_run")
    settings = accuracy.Settings(
        weights=weights,
        data=data,
        folder=folder or Path("out") / "bench-compress",
        only=tuple(only or ()),
        **_how_many(seeds),
        **({"pictures": pictures} if pictures else {}),
    )
    with bars.progress_bar(Console(stderr=True)) as progress:
        accuracy.run_cells(settings, progress)
    return settings


def _fusion_accuracy(folder: Path | None, seeds: str | None) -> Any:
    """Settings of the suite, whatever was missing trained and scored under progress bars."""
    many = _how_many(seeds)
    fusing = offline("bench_fusion_accuracy")
    settings = fusing.Settings(folder=folder or Path("out") / "fusion-accuracy", **many)
    fusing.fill(settings, fusing.cells_of(settings), Console(stderr=True))
    return settings


def _how_many(seeds: str | None) -> dict[str, int]:
    """--seeds N as a setting of the accuracy suites."""
    if seeds is None:
        return {}
    if not (seeds.isdecimal() and int(seeds)):
        raise ConfigError(f"--seeds {seeds}: must be a number, such as 3")
    return {"seeds": int(seeds)}


def _first_and_last(seeds: str | None) -> dict[str, int]:
    """--seeds A-B as settings of the search suite; one number is one world."""
    if seeds is None:
        return {}
    first, _, last = seeds.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or seeds.isdecimal())):
        raise ConfigError(f"--seeds {seeds}: must be two numbers, such as 300-319")
    return {"first_seed": int(first), "last_seed": int(last or first)}
