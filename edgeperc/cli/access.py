"""How verbs that talk to a daemon say who they are: --token-file, --ca, --cert, --key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeperc.errors import ConfigError

if TYPE_CHECKING:
    from edgeperc.client.connection import Access

TOKEN_VARIABLE = "EDGEPERC_TOKEN"

TokenFile = Annotated[
    Path | None,
    typer.Option(help=f"File that holds the token alone; without it, ${TOKEN_VARIABLE}."),
]
Ca = Annotated[
    Path | None, typer.Option("--ca", help="PEM file of who signed the daemon's certificate.")
]
Cert = Annotated[Path | None, typer.Option("--cert", help="This client's certificate, as PEM.")]
Key = Annotated[Path | None, typer.Option("--key", help="The key of --cert.")]


def access_of(
    token_file: Path | None, ca: Path | None, cert: Path | None = None, key: Path | None = None
) -> Access:
    """What the options say. Raises ConfigError for a token file that is none."""
    from edgeperc.client.connection import Access

    return Access(token=_token(token_file), tls_ca=ca or "", cert=cert or "", key=key or "")


def with_insecure(app: str, changes: Sequence[str]) -> list[str]:
    """Changes of an app with which all its sinks serve whoever reaches them. Raises ConfigError."""
    from edgeperc import places, plugin

    found, path = places.find_app(app, changes)
    return [
        *changes,
        *(
            f"sinks.{number}.insecure=true"
            for number, table in enumerate(found.sinks)
            if "insecure" in plugin.parameters(table, kind="sink", folder=path.parent)
        ),
    ]


def _token(path: Path | None) -> str:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        words = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path}: cannot be read") from error
    if len(words) != 1:
        raise ConfigError(
            f"--token-file {path}: holds {len(words)} words, not a token",
            hint="the token alone, without the role that stands before it in the daemon's file",
        )
    return words[0]
