"""numba, with a disk cache that never stands in the way of an import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(**options: Any) -> Callable[[Kernel], Kernel]:
    """Compile a function on first call, without the interpreter lock, as numpy would compute.

    Machine code is kept beside the source or in the user's cache folder. Where neither can be
    written (a read-only installation without a home), it is compiled anew in each process.
    """

    def compile_later(function: Kernel) -> Kernel:
        settings = {"nogil": True, "error_model": "numpy", **options}
        try:
            compiled: Kernel = numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # numba finds no folder that it may write to
            compiled = numba.njit(**settings)(function)
        return compiled

    return compile_later
