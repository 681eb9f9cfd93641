"""What the verbs about prompts write and say: masks in files, a few lines for a person, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich.console import Console
from rich.markup import escape

from edgeperc.errors import ConfigError, DataError, StoppedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeperc.cli.asked import Script
    from edgeperc.follow_video import Followed, MaskFile
    from edgeperc.render.video import VideoFile
    from edgeperc.result import Instances

Format: TypeAlias = Literal["overlay", "png", "rle", "polygon", "coco"]
ENDINGS: dict[Format, str] = {
    "overlay": ".png",
    "png": "",
    "rle": ".json",
    "polygon": ".json",
    "coco": ".json",
}


def form_of(out: Path | None) -> Format:
    """What a file of this name holds."""
    if out is None or out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        return "overlay"
    return "coco" if out.suffix == ".json" else "png"


def check_out(out: Path, form: Format) -> None:
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


def write(
    found: Instances,
    picture: NDArray[np.uint8],
    out: Path,
    form: Format,
    name: str,
    tolerance_px: float,
) -> None:
    """Write what was found in a picture. Raises ConfigError if the file cannot be written."""
    import json

    from edgeperc import masks, plain
    from edgeperc.mask_files import CocoFile, outlines

    try:
        if form == "overlay":
            _overlay(found, picture, out)
        elif form == "coco":
            file = CocoFile(out)
            file.write(found, name)
            file.close()
        elif form == "png" and out.suffix and len(found.masks) == 1:
            _write_whole(out, masks.png(found.masks[0]))
        elif form == "png":
            out.mkdir(exist_ok=True)
            for object_id, mask in zip(found.ids.tolist(), found.masks, strict=True):
                (out / f"{object_id}.png").write_bytes(masks.png(mask))
        else:
            rle = form == "rle"
            objects = plain.instances(found) if rle else outlines(found, tolerance_px=tolerance_px)
            size = dict(zip(("width", "height"), found.picture_px, strict=True))
            text = json.dumps({"image": name, **size, "objects": objects}) + "\n"
            _write_whole(out, text.encode())
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error


def _overlay(found: Instances, picture: NDArray[np.uint8], out: Path) -> None:
    import cv2

    from edgeperc.render.drawing import draw

    drawn = cv2.cvtColor(draw(picture, [found]), cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(out.suffix.lower(), drawn)
    if not encoded:
        raise ConfigError(f"{out}: OpenCV cannot write {out.suffix}")
    _write_whole(out, data.tobytes())


def _write_whole(out: Path, data: bytes) -> None:
    """Write a file, or leave what was there: nothing is there by halves. Raises OSError."""
    scratch = out.with_name(f".{out.name}.new")
    try:
        scratch.write_bytes(data)
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)


def said(
    found: Instances, image: Path, out: Path | None, look_s: float, ask_s: float
) -> dict[str, Any]:
    """What was found in a picture, for a program."""
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


def lines(found: Instances, most: int = 20) -> Iterator[str]:
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


def outputs(out: Path | None, masks: Path | None) -> tuple[VideoFile | None, list[MaskFile]]:
    """The files that are asked for. Raises ConfigError if one cannot be written."""
    from edgeperc.mask_files import CocoFile, NumberFolder
    from edgeperc.render.video import VideoFile

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


def report_of(
    report: Followed, counters: dict[str, int], source: str, written: list[Path]
) -> dict[str, Any]:
    """How a video went, for a program."""
    return {
        "source": source,
        "frames": report.frames,
        "missed": report.missed,
        "complete": report.complete,
        "wall_s": round(report.wall_s, 3),
        "frames_per_s": round(report.rate_hz, 2),
        "step_ms_p50": round(report.percentile_ms(50), 2),
        "step_ms_p99": round(report.percentile_ms(99), 2),
        "objects": [{"id": each, "seen": report.seen[each]} for each in sorted(report.seen)],
        "counters": counters,
        "written": [str(path) for path in written],
    }


def tell(console: Console, report: Followed, counters: dict[str, int], written: list[Path]) -> None:
    """The end line: how much, how fast, who was seen, where it is."""
    objects = ", ".join(f"{each}: {report.seen[each]:,}" for each in sorted(report.seen))
    console.print(
        escape(
            f"{count(report.frames, 'frame')} at {report.rate_hz:.1f} a second; a step takes "
            f"{report.percentile_ms(50):.0f} ms (p50), {report.percentile_ms(99):.0f} ms (p99)"
        ),
        highlight=False,
    )
    console.print(
        escape(f"objects, and frames that show them: {objects}" if objects else "nothing was seen"),
        highlight=False,
    )
    if report.missed:
        console.print(
            f"passed over, because newer ones were there: {count(report.missed, 'frame')}"
        )
    routed = {name: n for name, n in counters.items() if name.startswith(("dense_", "routed_"))}
    if any(n for name, n in routed.items() if name.startswith("routed_")):
        said = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in routed.items())
        console.print(escape(said), highlight=False)
    for path in written:
        console.print(escape(f"written to {path}{how_to_look(path)}"), soft_wrap=True)


def check_complete(report: Followed, script: Script, source: str) -> None:
    """Raise StoppedError if it was stopped, DataError if something that was asked never came."""
    if not report.complete:
        raise StoppedError(f"{source}: stopped after {count(report.frames, 'frame')}")
    if not report.frames:
        raise DataError(f"{source}: there is not one frame in it")
    if script.waiting:
        when = ", ".join(f"object {each.object_id} {each.when}" for each in script.waiting)
        raise DataError(
            f"{source} ended, after {count(report.frames, 'frame')}, before {when}",
            hint="frames are counted from 0; seconds are written @1.5s",
        )


def how_to_look(path: Path | None) -> str:
    """How to see what was written, behind its name."""
    if path is None or path.suffix == ".json":
        return ""
    if path.is_dir():
        return " (a picture each)"
    return f"; look at it: xdg-open {path}"


def count(number: int, what: str) -> str:
    """So many of something, in words."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
