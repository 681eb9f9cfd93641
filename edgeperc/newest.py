"""The newest frame of a live source for whoever is slower than it: no delay builds up."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from edgeperc.packet import Frame


class Newest:
    """Yields frames as they come, and of those that came in the meantime only the last.

    Reads `frames` in a thread of its own until their end; what they raise is raised here, after
    the last frame. missed: how many nobody saw.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.missed = 0
        self._frames = frames
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._over = False
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Frame]:
        threading.Thread(target=self._read, name="newest", daemon=True).start()
        while (frame := self._take()) is not None:
            yield frame
        if self._error:
            raise self._error

    def _take(self) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._over)
            frame, self._frame = self._frame, None
            return frame

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self.missed += self._frame is not None
                    self._frame = frame
                    self._changed.notify()
        except Exception as error:  # for whoever takes the frames
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()
