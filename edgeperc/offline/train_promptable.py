"""Train our small promptable network on photographs and videos with masks, and on the twin.

    train("promptable", Path("out/promptable"), data=Path("../shared/data"), seed=0)

Stills with many objects, each prompted and then corrected; later, by turns, clips in which what was
prompted in the first picture is tracked. The convolutions beside the trunk begin as those of a
detector, if one lies with the data, and learn more slowly than the rest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from edgeperc.offline.clip_data import ClipData
from edgeperc.offline.nets.promptable import PROMPTABLE
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.prompting_task import Load, PromptingTask, PromptScores, validate_prompting
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, save_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A network, how fast it learns, and how much each step looks at. slow: the pyramid's share of
    the learning rate.
    """

    network: Sam2Config
    pace: Pace
    load: Load
    slow: float = 0.2


SETTINGS = {
    "promptable": Settings(
        network=PROMPTABLE,
        load=Load(first_clip=1300),
        pace=Pace(
            steps=4400,
            rate=6e-4,
            decay=0.05,
            warm_up_steps=100,
            average=0.998,
            checkpoint_every=100,
            validate_every=1000,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out. weights: by torch.save, `config` and `net`."""

    weights: Path
    scores: PromptScores
    seconds: float


def train(
    name: str,
    out_dir: Path,
    *,
    data: Path,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = True,
    threads: int = 2,
    settings: Settings | None = None,
    console: Console | None = None,
) -> Trained:
    """Train into `out_dir`; goes on from the checkpoint there, unless resume is False.

    data: folder with bsds500, camvid and davis. Raises ConfigError for a checkpoint of another run,
    DataError for a folder without any of them.
    """
    settings = settings or SETTINGS[name]
    settings = replace(settings, pace=replace(settings.pace, steps=steps or settings.pace.steps))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    source = ClipData(data, side_px=settings.network.picture_px, cache=out_dir / "cache")
    task = PromptingTask(settings.network, source, settings.load, seed)
    identity = {
        "name": name,
        "seed": seed,
        "settings": repr(settings),
        "detector": source.detector is not None,
    }
    slow = {".pyramid.": settings.slow} if source.detector else None
    run = TrainingRun(task, identity, out_dir / "checkpoint.pt", settings.pace, slow=slow)
    weights = out_dir / "weights.pt"

    def keep() -> PromptScores:
        mean = Sam2(settings.network)
        state = run.averaged()
        net = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
        mean.load_state_dict(net)
        save_state({"config": asdict(settings.network), "net": net}, weights)
        return validate_prompting(mean.eval(), source.held_out)

    with progress_bar(console or Console()) as progress:
        if resume:
            run.load()
        run.fit(task.loss, progress, validate=lambda: str(keep()))
    return Trained(weights=weights, scores=keep(), seconds=run.seconds)
