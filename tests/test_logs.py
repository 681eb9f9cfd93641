from __future__ import annotations

import io
import json
import logging
import re
import shlex
from collections.abc import Iterator

import pytest

from edgeperc import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_says_when_how_bad_and_who(stream: io.StringIO) -> None:
    logs.start("text", stream=stream)
    log = logging.getLogger("edgeperc")
    log.warning('sensor "%s" is lost', "wide", extra={"worker": "sensors/wide"})
    log.debug("nobody wants to know")
    log.info("two\nlines")
    first, second = stream.getvalue().splitlines()
    said = dict(part.split("=", 1) for part in shlex.split(first))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    wanted = {"level": "warning", "worker": "sensors/wide", "msg": 'sensor "wide" is lost'}
    assert said == wanted
    assert second.endswith('level=info worker=front msg="two\\nlines"')


def test_programs_get_json_with_tracebacks(stream: io.StringIO) -> None:
    logs.start("json", stream=stream)
    try:
        raise ValueError("x = 1")
    except ValueError:
        logging.getLogger("edgeperc").exception("a bug")
    said = json.loads(stream.getvalue())
    assert (said["level"], said["msg"], said["worker"]) == ("error", "a bug", "front")
    assert "ValueError: x = 1" in said["traceback"]


def test_what_comes_again_and_again_is_counted(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now_s)
    logs.start("json", stream=stream)
    log = logging.getLogger("edgeperc")
    for _ in range(50):
        log.warning("dropped")
        log.warning("dropped", extra={"worker": "pipelines/a"})
    log.warning("another")
    now_s = 11.0
    log.warning("dropped")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(each["msg"], each["worker"], each.get("repeated")) for each in lines] == [
        ("dropped", "front", None),
        ("dropped", "pipelines/a", None),
        ("another", "front", None),
        ("dropped", "front", 49),
    ]


def test_memory_of_what_was_said_has_an_end() -> None:
    kept = logs.Repeats()
    for number in range(2000):
        record = logging.LogRecord("e", logging.INFO, "f", 1, f"line {number}", None, None)
        assert kept.filter(record)
    assert len(kept._seen) <= 256
