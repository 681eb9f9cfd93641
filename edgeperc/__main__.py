"""`python -m edgeperc` is `edgeperc`."""

from __future__ import annotations

from edgeperc.cli import main

if __name__ == "__main__":
    main()
