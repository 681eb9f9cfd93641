"""The made-up rig of search.md, section 9, and a pair of cameras for tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from edgeperc.bench.two_mirrors import Truth


@pytest.fixture(scope="session")
def truth() -> Truth:
    return Truth()


@pytest.fixture(scope="session")
def pair() -> ModuleType:
    """pair.py: two cameras and a mirror that tests can look through."""
    spec = importlib.util.spec_from_file_location("pair", Path(__file__).with_name("pair.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
