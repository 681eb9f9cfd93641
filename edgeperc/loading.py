"""What a person sees while models are loaded: which engine is being built, and for how long.

with loading(console):
    run = supervise(plan)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from edgeperc.inference.engines import building

_LOOK_S = 0.5
_SAY_EVERY_S = 10.0


@contextmanager
def loading(console: Console) -> Iterator[None]:
    """Show it in a terminal; elsewhere print a line every ten seconds while an engine is built."""
    done = threading.Event()
    with console.status("loading models ...") as status:

        def look() -> None:
            said_s = time.monotonic() - _SAY_EVERY_S
            while not done.wait(_LOOK_S):
                builds = building()
                line = "; ".join(f"{each.network} ({each.seconds:.0f} s)" for each in builds)
                text = f"building engine for {line}" if line else "loading models ..."
                status.update(escape(text))
                if line and not console.is_terminal and time.monotonic() - said_s >= _SAY_EVERY_S:
                    said_s = time.monotonic()
                    console.print(escape(text))

        thread = threading.Thread(target=look, name="loading", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
