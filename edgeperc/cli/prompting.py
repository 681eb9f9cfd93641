"""Verbs that segment what is pointed at: segment a picture, track through a video."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, Seconds, Threads, app
from edgeperc.cli.say import print_json
from edgeperc.errors import ConfigError, DataError, StoppedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from edgeperc.cli.asked import Asked
    from edgeperc.follow_video import Followed, MaskFile
    from edgeperc.masks import Rle
    from edgeperc.packet import Frame
    from edgeperc.prompt import ImageSession
    from edgeperc.result import Instances
    from edgeperc.video import VideoFile

Format = Literal["overlay", "png", "rle", "polygon", "coco"]
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
    form = form or _form(out)
    if out is None and not as_json:
        out = Path(f"{image.stem}-{form}{_ENDINGS[form]}")
    if out is not None:
        _check_out(out, form)
    picture = read_picture(image)
    console = Console(stderr=as_json)
    session = ImageSession(places.find_model(model), threads=threads)
    try:
        started_s = time.perf_counter()
        session.look(picture)
        looked_s = time.perf_counter()
        if everything:
            found = _everything(session, picture, grid)
        else:
            boxes = _Boxes(detector, threads) if detector else None
            found = _asked(session, picture, asked, boxes)
        ended_s = time.perf_counter()
    finally:
        session.close()
    if out is not None:
        _write(found, picture, out, form, image.name, tolerance_px)
    if as_json:
        print_json(_said(found, image, out, looked_s - started_s, ended_s - looked_s))
        return
    for line in _lines(found):
        console.print(escape(line), highlight=False)
    console.print(
        escape(
            f"{_count(len(found.ids), 'object')} in {image.name} by {found.model.name}: looked in "
            f"{(looked_s - started_s) * 1e3:.0f} ms, answered in {(ended_s - looked_s) * 1e3:.0f} "
            f"ms on {_count(threads, 'thread')} ({found.model.provider})"
        )
    )
    console.print(escape(f"written to {out}{_how_to_look(out)}"), soft_wrap=True)


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
    boxes = _Boxes(detector, threads) if detector else None
    session = VideoSession(places.find_model(model), threads=threads, efficient=efficient)
    try:
        video, files = _outputs(out, masks)

        def take(frame: Frame, index: int, time_s: float) -> Any:
            told, gone = script.take(index, time_s)
            if boxes and index == 0:
                told.update(boxes.prompts(frame.image, after=max(told, default=0)))
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
        print_json(_report(report, counters, source, written))
    else:
        _tell(console, report, counters, written)
    _check_complete(report, script, source)


_ENDINGS: dict[Format, str] = {
    "overlay": ".png",
    "png": "",
    "rle": ".json",
    "polygon": ".json",
    "coco": ".json",
}


class _Boxes:
    """Prompts from a detector's boxes, and the classes of what it found."""

    def __init__(self, name: str, threads: int) -> None:
        from edgeperc import places
        from edgeperc.detect import Detector

        self._detector = Detector(places.find_model(name), threads=threads)
        self.classes: tuple[str, ...] = ()

    def prompts(self, image: NDArray[np.uint8], *, after: int = 0) -> dict[int, Any]:
        """Prompts by object, numbered from `after` + 1. Raises DataError if nothing was found."""
        from edgeperc.packet import Frame, Stamp
        from edgeperc.prompt import from_detections

        stamp = Stamp(source="", seq=0, start_ns=0, end_ns=0)
        found = self._detector(Frame(stamp=stamp, image=image))
        self.classes = tuple(found.classes[index] for index in found.class_ids)
        prompts = from_detections(found)
        if not prompts:
            raise DataError(
                f"'{self._detector.ref.name}' finds nothing in the picture",
                hint="point at something: --box X0,Y0,X1,Y1 or --point X,Y",
            )
        return dict(enumerate(prompts, start=after + 1))


def _asked(
    session: ImageSession, picture: NDArray[np.uint8], asked: list[Asked], boxes: _Boxes | None
) -> Instances:
    """An object for each prompt, in order of their numbers."""
    from edgeperc import masks

    said = {each.object_id: each.prompt() for each in asked}
    prompts = boxes.prompts(picture) if boxes else said
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


def _form(out: Path | None) -> Format:
    """What a file of this name holds."""
    if out is None or out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        return "overlay"
    return "coco" if out.suffix == ".json" else "png"


def _check_out(out: Path, form: Format) -> None:
    """Raise ConfigError if it cannot be written in the end."""
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder")
    if form == "overlay" and out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{out}: an overlay is a .png, .jpg or .webp")
    if form != "png" and out.is_dir():
        raise ConfigError(f"{out}: is a folder", hint="name a file, or take --format png")
    is_taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if form == "png" and not out.suffix and is_taken:
        raise ConfigError(f"{out}: is not an empty folder", hint="name a new one")


def _write(
    found: Instances,
    picture: NDArray[np.uint8],
    out: Path,
    form: Format,
    name: str,
    tolerance_px: float,
) -> None:
    import json

    from edgeperc import masks, plain
    from edgeperc.mask_files import CocoFile, outlines

    try:
        if form == "overlay":
            _write_overlay(found, picture, out)
        elif form == "coco":
            file = CocoFile(out)
            file.write(found, name)
            file.close()
        elif form == "png" and out.suffix and len(found.masks) == 1:
            out.write_bytes(masks.png(found.masks[0]))
        elif form == "png":
            out.mkdir(exist_ok=True)
            for object_id, mask in zip(found.ids.tolist(), found.masks, strict=True):
                (out / f"{object_id}.png").write_bytes(masks.png(mask))
        else:
            rle = form == "rle"
            objects = plain.instances(found) if rle else outlines(found, tolerance_px=tolerance_px)
            size = dict(zip(("width", "height"), found.picture_px, strict=True))
            out.write_text(json.dumps({"image": name, **size, "objects": objects}) + "\n")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error


def _write_overlay(found: Instances, picture: NDArray[np.uint8], out: Path) -> None:
    import cv2

    from edgeperc.drawing import draw

    drawn = cv2.cvtColor(draw(picture, [found]), cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(out.suffix.lower(), drawn)
    if not encoded:
        raise ConfigError(f"{out}: OpenCV cannot write {out.suffix}")
    out.write_bytes(data.tobytes())


def _said(
    found: Instances, image: Path, out: Path | None, look_s: float, ask_s: float
) -> dict[str, Any]:
    from edgeperc.plain import instances

    return {
        "image": str(image),
        "width": found.picture_px[0],
        "height": found.picture_px[1],
        "model": found.model.name,
        "provider": found.model.provider,
        "look_ms": round(look_s * 1e3, 2),
        "ask_ms": round(ask_s * 1e3, 2),
        "out": None if out is None else str(out),
        "objects": instances(found),
    }


def _lines(found: Instances, most: int = 20) -> Iterator[str]:
    """What is known of each object, of the first `most` ones."""
    from edgeperc import masks

    for index, object_id in enumerate(found.ids[:most].tolist()):
        name = " ".join(filter(None, (str(object_id), *found.classes[index : index + 1])))
        area = masks.area(found.masks[index])
        corners = ", ".join(f"{edge:g}" for edge in found.boxes[index].tolist())
        where = f"{area:,} px within {corners}" if area else "not one pixel"
        yield f"  object {name}: {where}, score {found.scores[index]:.2f}"
    if len(found.ids) > most:
        yield f"  and {len(found.ids) - most} more"


def _outputs(out: Path | None, masks: Path | None) -> tuple[VideoFile | None, list[MaskFile]]:
    """The files that are asked for. Raises ConfigError if one cannot be written."""
    from edgeperc.mask_files import CocoFile, NumberFolder
    from edgeperc.video import VideoFile

    video, files = None, list[Any]()
    if out is not None and out.suffix:
        video = VideoFile(out)
    elif out is not None:
        files.append(NumberFolder(out))
    if masks is not None:
        if masks.suffix != ".json":
            raise ConfigError(f"--masks {masks}: a COCO json ends in .json")
        files.append(CocoFile(masks))
    return video, files


def _report(
    report: Followed, counters: dict[str, int], source: str, written: list[Path]
) -> dict[str, Any]:
    return {
        "source": source,
        "frames": report.frames,
        "complete": report.complete,
        "wall_s": round(report.wall_s, 3),
        "frames_per_s": round(report.rate_hz, 2),
        "step_ms_p50": round(report.percentile_ms(50), 2),
        "step_ms_p99": round(report.percentile_ms(99), 2),
        "objects": [{"id": each, "seen": report.seen[each]} for each in sorted(report.seen)],
        "counters": counters,
        "written": [str(path) for path in written],
    }


def _tell(
    console: Console, report: Followed, counters: dict[str, int], written: list[Path]
) -> None:
    """The end line: how much, how fast, who was seen, where it is."""
    objects = ", ".join(f"{each} in {report.seen[each]}" for each in sorted(report.seen))
    console.print(
        escape(
            f"{_count(report.frames, 'frame')} at {report.rate_hz:.1f} a second; a step takes "
            f"{report.percentile_ms(50):.0f} ms (p50), {report.percentile_ms(99):.0f} ms (p99)"
        ),
        highlight=False,
    )
    console.print(
        escape(f"{_count(len(report.seen), 'object')} seen" + (f": {objects}" if objects else "")),
        highlight=False,
    )
    routed = {name: n for name, n in counters.items() if name.startswith(("dense_", "routed_"))}
    if any(n for name, n in routed.items() if name.startswith("routed_")):
        said = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in routed.items())
        console.print(escape(said), highlight=False)
    for path in written:
        console.print(escape(f"written to {path}{_how_to_look(path)}"), soft_wrap=True)


def _check_complete(report: Followed, script: Any, source: str) -> None:
    if not report.complete:
        raise StoppedError(f"{source}: stopped after {_count(report.frames, 'frame')}")
    if not report.frames:
        raise DataError(f"{source}: there is not one frame in it")
    if script.waiting:
        when = ", ".join(f"object {each.object_id} {each.when}" for each in script.waiting)
        raise DataError(
            f"{source} ended, after {_count(report.frames, 'frame')}, before {when}",
            hint="frames are counted from 0; seconds are written @1.5s",
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


def _how_to_look(path: Path | None) -> str:
    """How to see what was written, behind its name."""
    if path is None or path.suffix == ".json":
        return ""
    if path.is_dir():
        return " (a picture each)"
    return f"; look at it: xdg-open {path}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
