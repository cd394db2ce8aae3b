"""`python -m segdl`: the same program as `segdl`."""

from __future__ import annotations

from segdl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
