"""A training run that ends behind its first checkpoint, and the steps that the next one takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeperc.offline import training_run
from edgeperc.offline.training_run import TrainingRun, save_state


class KilledError(BaseException):
    """Nothing that a run would catch."""


@contextmanager
def killed_at_its_checkpoint() -> Iterator[None]:
    """What runs in here has to write a checkpoint, and ends there."""

    def dying(state: object, path: Path) -> None:
        save_state(state, path)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "save_state", dying)
        with pytest.raises(KilledError):
            yield


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of each step from now on."""
    steps, advance = list[int](), TrainingRun._advance
    monkeypatch.setattr(
        TrainingRun, "_advance", lambda run, loss: steps.append(run.step) or advance(run, loss)
    )
    return steps
