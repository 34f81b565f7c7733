"""`python -m tests.servers stop`: end the PostgreSQL servers that test runs of this checkout have left running."""

from __future__ import annotations

import sys

from .shared_postgres import SharedPostgres, server_folders


def main() -> None:
    """Do what the one argument says."""
    if sys.argv[1:] != ["stop"]:
        sys.exit(__doc__)
    stopped = sum(SharedPostgres(folder).stop() for folder in server_folders())
    sys.stdout.write(f"PostgreSQL servers stopped: {stopped}\n")


if __name__ == "__main__":
    main()
