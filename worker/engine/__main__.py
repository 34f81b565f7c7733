"""`python -m interlock.worker.engine module:app hostname module…`: the engine process of a worker."""

from __future__ import annotations

import sys

from .engine import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
