"""The command line itself: what all verbs share, and how mistakes end."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console

from edgeperc import __version__, screen
from edgeperc.cli.say import complain
from edgeperc.errors import EdgepercError

app = typer.Typer(
    help="Edge perception for vision, segmentation and event cameras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to use.")]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="Of onnxruntime, e.g. openvino; may be repeated, best first."),
]
Seconds = Annotated[float | None, typer.Option(min=0.0, help="Stop after this many seconds.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log more, and show tracebacks of errors.")
    ] = False,
) -> None:
    """Edge perception for vision, segmentation and event cameras."""
    import logging

    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler]
    )


def _is_verbose() -> bool:
    return sys.argv[1:2] in (["-v"], ["--verbose"])


def _verb(error: Exception) -> str:
    """As much of the command line as was understood."""
    context = getattr(error, "ctx", None)
    return context.command_path if context else "edgeperc"


def main() -> None:
    """Run the command line; mistakes are one line and exit code 2, without a traceback."""
    screen.prepare()
    try:
        code = app(standalone_mode=False, prog_name="edgeperc")  # also for python -m edgeperc
    except EdgepercError as error:
        code = complain(str(error), error.hint, error.exit_code)
        if _is_verbose():
            traceback.print_exc()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has seen enough
        code = 1
    except OSError as error:
        code = complain(str(error), "edgeperc -v shows where", 1)
        if _is_verbose():
            traceback.print_exc()
    except Exception as error:
        # typer's usage errors have no common public base class, but they can format themselves.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # empty where the help was printed instead
        code = complain(message, f"see {_verb(error)} --help", 2) if message else 2
    screen.settle()
    sys.exit(code if isinstance(code, int) else 0)
