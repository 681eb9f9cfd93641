"""A decoder's process: `python -m edgeperc.drivers.formats JOB` writes packets to its output."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import select
import signal
import sys
import traceback
from pathlib import Path

import msgspec

from edgeperc.drivers.formats import wire
from edgeperc.errors import EdgepercError


def main(job: wire.Job) -> None:
    """Read the job's source and write its packets; where that fails, say why."""
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not come between the packets
    _end_with_parent()
    try:
        reader = importlib.import_module(job.module)
        if job.live:
            packets = reader.watch(job.source, job.options)
        else:
            packets = reader.read(Path(job.source), job.options)
        for packet in packets:
            wire.send(pipe, packet)
        wire.note(pipe, wire.ENDED)
    except BrokenPipeError:
        pass  # nobody wants more
    except BaseException as error:  # Rust's panics are no Exception
        failure = wire.Failure(
            kind=type(error).__name__ if isinstance(error, EdgepercError) else "",
            message=str(error) or type(error).__name__,
            hint=getattr(error, "hint", ""),
            trace=traceback.format_exc(),
        )
        with contextlib.suppress(BrokenPipeError):
            wire.note(pipe, wire.FAILED, msgspec.json.encode(failure))
    os._exit(0)  # whatever a native library would do at exit may hang


def _end_with_parent() -> None:
    """Have the kernel end this process when the other end of its input closes.

    The parent holds that end, so also its sudden death counts; the signal needs neither a thread
    nor the interpreter, which a decoder may hang in. Memory, if short, is taken from here first.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=wire.Job))
