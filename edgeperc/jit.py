"""numba, with a disk cache that never stands in the way of an import."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

log = logging.getLogger("edgeperc")

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(**options: Any) -> Callable[[Kernel], Kernel]:
    """Compile a function on first call, without the interpreter lock, as numpy would compute.

    Machine code is kept beside the source or in the user's cache folder. Where neither can be
    written (a read-only installation without a home, a full disk), or what is kept there cannot be
    read, it is compiled anew in each process.
    """

    def compile_later(function: Kernel) -> Kernel:
        settings = {"nogil": True, "error_model": "numpy", **options}
        try:
            compiled: Any = numba.njit(cache=True, **settings)(function)
            _forgive(compiled._cache)
        except RuntimeError:  # numba finds no folder that it may write to
            compiled = numba.njit(**settings)(function)
        return cast(Kernel, compiled)

    return compile_later


def _forgive(cache: Any) -> None:
    """Let a cache of numba fail without those who compile."""
    save, load = cache.save_overload, cache.load_overload

    def save_if_possible(*what: Any) -> None:
        try:
            save(*what)
        except OSError as error:
            log.warning("what was compiled is not kept: %s", error)

    def load_if_possible(*what: Any) -> Any:
        try:
            return load(*what)
        except Exception as error:  # of a file that was cut off, whatever pickle makes of it
            log.warning("what was compiled before cannot be read: %s", error)
            return None

    cache.save_overload, cache.load_overload = save_if_possible, load_if_possible
