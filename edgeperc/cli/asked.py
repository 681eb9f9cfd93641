"""What a person points at on the command line: points, boxes and masks of objects, on frames.

--point [ID:]X,Y[,0][@WHEN]   --box [ID:]X0,Y0,X1,Y1[@WHEN]   --mask [ID:]FILE[@WHEN]

WHEN is the number of a frame, the first is 0, or a time such as 1.5s. Points without an ID are of
object 1; each box or mask without one is another object. A file holds the same:

[[prompts]]
object = 2
time_s = 1.5                      # or frame = 36; left out, the first frame
box = [300, 120, 520, 400]
points = [[310, 130, 0]]          # x, y, and 0 where it is beside the object
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeperc.config import convert, read_toml
from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import ConfigError, blame
from edgeperc.prompting.prompts import Prompt

_FORM = re.compile(r"(?:(?P<id>\d+):)?(?P<what>.+?)(?:@(?P<when>\d+(?:\.\d*)?)(?P<s>s?))?")
_FORMS = {
    "point": "[ID:]X,Y or [ID:]X,Y,0 for one beside the object, such as 412,230",
    "box": "[ID:]LEFT,TOP,RIGHT,BOTTOM, such as 300,120,520,400",
    "mask": "[ID:]FILE",
    "remove": "ID@WHEN, such as 2@90",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[prompts]] of a file: what is asked of one object on one frame."""

    object: int = 1
    frame: int | None = None
    time_s: float | None = None
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, ...], ...] = ()
    mask: str | None = None
    remove: bool = False


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of prompts."""

    prompts: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """The frame with this number, or the first one at this time or later."""

    frame: int | None = None
    time_s: float | None = None

    def __str__(self) -> str:
        return f"@{self.frame}" if self.time_s is None else f"@{self.time_s:g}s"

    def has_come(self, frame: int, time_s: float) -> bool:
        """Whether it is now."""
        if self.time_s is not None:
            return time_s >= self.time_s - 1e-6
        return frame >= (self.frame or 0)


FIRST = When(frame=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of one object at one time."""

    object_id: int
    when: When = FIRST
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, ...] | None = None
    mask: str | None = None
    remove: bool = False

    def prompt(self) -> Prompt:
        """As sessions take it. Raises DataError if the mask's file cannot be read."""
        mask = None
        if self.mask is not None:
            mask = read_picture(Path(self.mask)).max(axis=2) > 127
        points = np.array([point[:2] for point in self.points], np.float32).reshape(-1, 2)
        labels = np.array([point[2] for point in self.points], np.float32)
        box = None if self.box is None else np.array(self.box, np.float32)
        return Prompt(points=points, labels=labels, box=box, mask=mask)


@dataclass(slots=True)
class Script:
    """What is still to be asked, in order."""

    waiting: list[Asked] = field(default_factory=list)

    def take(self, frame: int, time_s: float) -> tuple[dict[int, Prompt], list[int]]:
        """Prompts by object, and objects to remove, whose time has come."""
        now = [each for each in self.waiting if each.when.has_come(frame, time_s)]
        self.waiting = [each for each in self.waiting if each not in now]
        prompts = {each.object_id: each.prompt() for each in now if not each.remove}
        return prompts, [each.object_id for each in now if each.remove]


def from_options(
    points: Sequence[str] = (),
    boxes: Sequence[str] = (),
    masks: Sequence[str] = (),
    removes: Sequence[str] = (),
    file: Path | None = None,
) -> list[Asked]:
    """Everything that was pointed at, in order of frames. Raises ConfigError that says how."""
    told = [*_of_file(file)] if file else []
    told += [_one("point", text) for text in points]
    shapes = [_one("box", text) for text in boxes] + [_one("mask", text) for text in masks]
    taken = {each.object_id for each in (*told[: len(told) - len(points)], *shapes)}
    free = (number for number in itertools.count(1) if number not in taken)
    told += [replace(each, object_id=each.object_id or next(free)) for each in shapes]
    told += [_one("remove", text) for text in removes]
    return _joined(told)


def _joined(told: Iterable[Asked]) -> list[Asked]:
    """One entry for each object and time. Raises ConfigError where two contradict each other."""
    joined: dict[tuple[int, When], Asked] = {}
    for each in told:
        key = (each.object_id, each.when)
        before = joined.get(key)
        if before is None:
            joined[key] = each
            continue
        for name in ("box", "mask"):
            if getattr(before, name) is not None and getattr(each, name) is not None:
                raise ConfigError(
                    f"object {each.object_id} has two of --{name} {each.when}",
                    hint=f"number the objects: --{name} 1:… --{name} 2:…",
                )
        if before.remove != each.remove:
            raise ConfigError(f"object {each.object_id} is pointed at and removed {each.when}")
        joined[key] = replace(
            before,
            points=before.points + each.points,
            box=before.box or each.box,
            mask=before.mask or each.mask,
        )
    return list(joined.values())


def _one(kind: str, text: str) -> Asked:
    """One option's value; an object that is not named is 1 for points, 0 (the next) else."""
    form = _FORM.fullmatch(text.strip())
    wrong = ConfigError(f"--{kind} {text}: not as it should be", hint=f"it is {_FORMS[kind]}")
    if not form:
        raise wrong
    when = FIRST
    if form["when"]:
        if not form["s"] and "." in form["when"]:
            raise ConfigError(
                f"--{kind} {text}: frames have whole numbers", hint=f"a time is @{form['when']}s"
            )
        when = When(time_s=float(form["when"])) if form["s"] else When(frame=int(form["when"]))
    object_id = int(form["id"] or 0)
    if kind == "mask":
        return Asked(object_id=object_id, when=when, mask=form["what"])
    try:
        numbers = [float(part) for part in form["what"].split(",")]
    except ValueError:
        raise wrong from None
    if kind == "remove" and len(numbers) == 1 and numbers[0].is_integer() and not object_id:
        return Asked(object_id=int(numbers[0]), when=when, remove=True)
    if kind == "box" and len(numbers) == 4:
        return Asked(object_id=object_id, when=when, box=tuple(numbers))
    if kind == "point" and len(numbers) in (2, 3) and numbers[2:] in ([], [0.0], [1.0]):
        label = int(numbers[2]) if len(numbers) == 3 else 1
        points = ((numbers[0], numbers[1], label),)
        return Asked(object_id=object_id or 1, when=when, points=points)
    raise wrong


def _of_file(path: Path) -> Iterable[Asked]:
    table: Any
    if path.suffix == ".json":
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
    else:
        table = read_toml(path)
    for number, entry in enumerate(convert(table, File, where=str(path)).prompts, start=1):
        with blame(f"{path} [[prompts]] #{number}"):
            yield _entry(entry, path.parent)


def _entry(entry: Entry, folder: Path) -> Asked:
    if entry.frame is not None and entry.time_s is not None:
        raise ConfigError("frame and time_s: name one of them")
    if entry.object < 1 or (entry.frame or 0) < 0:
        raise ConfigError("objects count from 1, frames from 0")
    if any(len(point) < 2 or point[2:] not in ((), (0,), (1,)) for point in entry.points):
        raise ConfigError("a point is [x, y], and 0 as a third where it is beside the object")
    if not (entry.remove or entry.box or entry.points or entry.mask):
        raise ConfigError("asks for nothing", hint="give it box, points, mask or remove = true")
    return Asked(
        object_id=entry.object,
        when=FIRST
        if entry.frame is None and entry.time_s is None
        else When(frame=entry.frame, time_s=entry.time_s),
        points=tuple((point[0], point[1], int((*point, 1)[2])) for point in entry.points),
        box=entry.box,
        mask=None if entry.mask is None else str(folder / entry.mask),
        remove=entry.remove,
    )
