"""What verbs print: JSON, tables, and mistakes with a hint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeperc.screen import screen


def fail_on(errors: Sequence[str], hints: Sequence[str] = ()) -> None:
    """Print mistakes and what may mend them; with any, exit with code 1."""
    for error in errors:
        complain(error, "", 1)
    for hint in hints:
        complain("", hint, 1)
    if errors:
        raise typer.Exit(1)


def in_words(value: Any) -> str:
    """A value of a card as a person would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{k} = {v}" for k, v in value.items() if v not in (None, "", 0))
    if isinstance(value, list | tuple):
        parts = [in_words(part) for part in value]
        return ("\n" if any(isinstance(part, dict) for part in value) else ", ").join(parts)
    return str(value)


def print_rows(what: str, rows: list[dict[str, Any]]) -> None:
    """Print a table; `what` heads the column of names. Only the last column is wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    *others, last = rows[0] if rows else [what]
    for column in others:
        widest = max(len(str(row[column])) for row in rows)
        table.add_column(what if column == "name" else column, min_width=widest, no_wrap=True)
    table.add_column(last)
    for row in rows:
        cells = ({True: "yes", False: "no"}.get(v, str(v)) for v in row.values())
        table.add_row(*cells)
    Console().print(table)


def print_json(value: Any) -> None:
    """Print for a program to read."""
    print(json.dumps(value, indent=2))


def complain(message: str, hint: str, code: int) -> int:
    """Print a mistake and what may mend it, each if there is one; returns the code."""
    console = screen(stderr=True, soft_wrap=True, highlight=False)
    if message:
        console.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        console.print(f"[cyan]hint:[/cyan] {escape(hint)}")
    return code
