"""Verbs that segment what is pointed at: segment a picture, track through a video."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.answers import (
    ENDINGS,
    Format,
    check_complete,
    check_out,
    count,
    form_of,
    how_to_look,
    lines,
    outputs,
    report_of,
    said,
    tell,
    write,
)
from edgeperc.cli.root import AsJson, Providers, Seconds, Threads, app
from edgeperc.cli.say import print_json
from edgeperc.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from edgeperc.cli.asked import Asked
    from edgeperc.masks import Rle
    from edgeperc.packet import Frame
    from edgeperc.prompt import ImageSession
    from edgeperc.result import Instances

Model = Annotated[str, typer.Option(help="Promptable model by name or folder.")]
Points = Annotated[
    list[str] | None,
    typer.Option("--point", metavar="X,Y[,0]", help="On the object; with a third 0, beside it."),
]
Boxes = Annotated[
    list[str] | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Around an object.")
]
Masks = Annotated[
    list[str] | None, typer.Option("--mask", metavar="FILE", help="Picture, bright on an object.")
]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Points, boxes and masks as .toml or .json.")
]
Finder = Annotated[
    str | None, typer.Option("--detector", help="Prompt with the boxes of this detector.")
]


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="Picture to look at.")],
    model: Model = "promptable",
    point: Points = None,
    box: Boxes = None,
    mask: Masks = None,
    prompts: Prompts = None,
    detector: Finder = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Whatever there is, without pointing.")
    ] = False,
    grid: Annotated[
        int, typer.Option(min=1, max=256, help="--everything: clicks along each side.")
    ] = 32,
    out: Annotated[
        Path | None, typer.Option(help="File or, for several PNGs, folder; IMAGE-overlay.png.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="What to write; by default as --out ends.")
    ] = None,
    tolerance_px: Annotated[
        float, typer.Option(min=0.0, help="--format polygon: fewer corners, so far off.")
    ] = 0.0,
    threads: Threads = 2,
    provider: Providers = None,
    as_json: AsJson = False,
) -> None:
    """Segment what is pointed at in a picture.

    Objects are numbered: --box 1:10,20,90,80 --box 2:… --point 2:40,50,0.
    Points without a number are object 1's, each box or mask without one is another object.
    """
    from edgeperc import places
    from edgeperc.cli.asked import from_options
    from edgeperc.drivers.formats.pictures import read_picture
    from edgeperc.prompt import ImageSession

    asked = from_options(point or (), box or (), mask or (), file=prompts)
    ways = [bool(asked), everything, detector is not None]
    if sum(ways) != 1:
        raise ConfigError(
            "nothing to do" if not any(ways) else "point, --everything or --detector: one of them",
            hint="point at something: --point X,Y or --box X0,Y0,X1,Y1; or take --everything",
        )
    if any(each.remove or str(each.when) != "@0" for each in asked):
        raise ConfigError("a picture has no frames", hint="leave out @ and remove, or use track")
    form = form or form_of(out)
    if out is None and not as_json:
        out = Path(f"{image.stem}-{form}{ENDINGS[form]}")
    if out is not None:
        check_out(out, form)
    picture = read_picture(image)
    console = Console(stderr=as_json)
    session = ImageSession(places.find_model(model), threads=threads, providers=provider or ())
    try:
        started_s = time.perf_counter()
        session.look(picture)
        looked_s = time.perf_counter()
        if everything:
            found = _everything(session, picture, grid)
        else:
            boxes = _Boxes(detector, threads, provider or ()) if detector else None
            found = _asked(session, picture, asked, boxes)
        ended_s = time.perf_counter()
    finally:
        session.close()
    if out is not None:
        write(found, picture, out, form, image.name, tolerance_px)
    if as_json:
        print_json(said(found, image, out, looked_s - started_s, ended_s - looked_s))
        return
    for line in lines(found):
        console.print(escape(line), highlight=False)
    console.print(
        escape(
            f"{count(len(found.ids), 'object')} in {image.name} by {found.model.name}: looked in "
            f"{(looked_s - started_s) * 1e3:.0f} ms, answered in {(ended_s - looked_s) * 1e3:.0f} "
            f"ms on {count(threads, 'thread')} ({found.model.provider})"
        )
    )
    console.print(escape(f"written to {out}{how_to_look(out)}"), soft_wrap=True)


@app.command()
def track(
    source: Annotated[
        str, typer.Argument(help="Video, folder of pictures, or camera (0, /dev/video0, a URL).")
    ],
    model: Model = "promptable",
    point: Points = None,
    box: Boxes = None,
    mask: Masks = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="ID@WHEN", help="Follow it no longer from there.")
    ] = None,
    prompts: Prompts = None,
    detector: Finder = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Video with overlays (.mp4, .webm, .avi), or folder for PNGs of ids."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="FILE.json", help="Masks as a COCO json.")
    ] = None,
    duration_s: Seconds = None,
    window_routing: Annotated[
        bool | None,
        typer.Option("--window-routing/--no-window-routing", help="Pass over empty windows."),
    ] = None,
    memory_keep_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of older frames' tokens; 1 is all.")
    ] = None,
    threads: Threads = 2,
    provider: Providers = None,
    as_json: AsJson = False,
) -> None:
    """Follow what is pointed at through a video or a live camera.

    WHEN it is pointed at is the first frame, or @FRAME or @SECONDSs:
    --box 1:10,20,90,80 --box 2:30,40,70,60@45 --point 1:50,60,0@2.5s --remove 2@90.
    Points without a number are object 1's, each box or mask without one is another object.
    """
    from edgeperc import places
    from edgeperc.cli.asked import Script, from_options
    from edgeperc.follow_video import Followed, follow, open_source
    from edgeperc.prompt import Efficient, VideoSession
    from edgeperc.serve import stop_signals

    asked = from_options(point or (), box or (), mask or (), remove or (), file=prompts)
    if not detector and all(each.remove for each in asked):
        raise ConfigError(
            "nothing to do", hint="point at something: --box X0,Y0,X1,Y1 or --point X,Y"
        )
    if out is None and masks is None and not as_json:
        name = Path(source).stem if Path(source).exists() else "camera"
        out = Path(f"{name}-tracked.mp4")
    efficient = Efficient(window_routing=window_routing, memory_keep_share=memory_keep_share)
    opened = open_source(source)
    console, report, script = Console(stderr=as_json), Followed(), Script(list(asked))
    boxes = _Boxes(detector, threads, provider or ()) if detector else None
    session = VideoSession(
        places.find_model(model), threads=threads, providers=provider or (), efficient=efficient
    )
    try:
        video, files = outputs(out, masks)

        def take(frame: Frame, index: int, time_s: float) -> Any:
            told, gone = script.take(index, time_s)
            if boxes and not boxes.found:
                after = max((each.object_id for each in asked), default=0)
                told.update(boxes.look(frame.image, after=after))
            return told, [each for each in gone if each in session.objects]

        with stop_signals() as stopping, _progress(opened.count) as moved:
            follow(
                opened,
                session,
                take,
                video=video,
                files=files,
                report=report,
                stopped=stopping.is_set,
                duration_s=duration_s,
                on_frame=lambda _: moved(),
            )
        counters = dict(session.counters)
    finally:
        session.close()
    written = [path for path in (out, masks) if path is not None and path.exists()]
    if as_json:
        print_json(report_of(report, counters, source, written))
    else:
        tell(console, report, counters, written)
    check_complete(report, script, source)
    if boxes and not boxes.found:
        raise boxes.nothing_in(source)


class _Boxes:
    """Prompts from a detector's boxes, and the classes of what it found."""

    def __init__(self, name: str, threads: int, providers: Sequence[str]) -> None:
        from edgeperc import places
        from edgeperc.detect import Detector

        self._detector = Detector(places.find_model(name), threads=threads, providers=providers)
        self.classes: tuple[str, ...] = ()
        self.found = False
        """Whether there was anything to point at, at the last look."""

    def look(self, image: NDArray[np.uint8], *, after: int = 0) -> dict[int, Any]:
        """Prompts by object, numbered from `after` + 1; none where it finds nothing."""
        from edgeperc.packet import Frame, Stamp
        from edgeperc.prompt import from_detections

        stamp = Stamp(source="", seq=0, start_ns=0, end_ns=0)
        found = self._detector(Frame(stamp=stamp, image=image))
        self.classes = tuple(found.classes[index] for index in found.class_ids)
        prompts = from_detections(found)
        self.found = bool(prompts)
        return dict(enumerate(prompts, start=after + 1))

    def nothing_in(self, source: str) -> DataError:
        """The error where it finds nothing."""
        return DataError(
            f"'{self._detector.ref.name}' finds nothing in {source}",
            hint="point at something: --box X0,Y0,X1,Y1 or --point X,Y",
        )


def _asked(
    session: ImageSession, picture: NDArray[np.uint8], asked: list[Asked], boxes: _Boxes | None
) -> Instances:
    """An object for each prompt, in order of their numbers."""
    from edgeperc import masks

    said = {each.object_id: each.prompt() for each in asked}
    prompts = boxes.look(picture) if boxes else said
    if boxes and not boxes.found:
        raise boxes.nothing_in("the picture")
    found: dict[int, tuple[Rle, float]] = {}
    for object_id, prompt in sorted(prompts.items()):
        answer = session.ask(prompt)
        found[object_id] = (masks.encode(answer.masks[0]), float(answer.scores[0]))
    classes = boxes.classes if boxes and len(boxes.classes) == len(found) else ()
    return _instances(session, picture, found, classes)


def _everything(session: ImageSession, picture: NDArray[np.uint8], grid: int) -> Instances:
    with _progress(grid * grid, "clicks") as moved:
        answer = session.everything(
            points_per_side=grid, on_progress=lambda done, _: moved(done - moved.done)
        )
    pieces = zip(answer.masks, answer.scores.tolist(), strict=True)
    return _instances(session, picture, dict(enumerate(pieces, start=1)))


def _instances(
    session: ImageSession,
    picture: NDArray[np.uint8],
    found: dict[int, tuple[Rle, float]],
    classes: tuple[str, ...] = (),
) -> Instances:
    import numpy as np

    from edgeperc import masks
    from edgeperc.packet import Stamp
    from edgeperc.result import Instances

    rles = tuple(rle for rle, _ in found.values())
    return Instances(
        stamp=Stamp(source="", seq=0, start_ns=0, end_ns=0),
        ids=np.array(list(found), np.int64),
        masks=rles,
        boxes=np.array([masks.box(rle) for rle in rles], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in found.values()], np.float32),
        visible=np.ones(len(found), np.float32),
        picture_px=(picture.shape[1], picture.shape[0]),
        model=session.ref,
        classes=classes,
    )


@dataclass(slots=True)
class _Moved:
    """Moves a progress bar on."""

    progress: Progress
    task: Any
    done: int = 0

    def __call__(self, by: int = 1) -> None:
        self.done += by
        self.progress.update(self.task, completed=self.done)


@contextmanager
def _progress(total: int | None, unit: str = "frames") -> Iterator[_Moved]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        yield _Moved(progress, progress.add_task("", total=total))
