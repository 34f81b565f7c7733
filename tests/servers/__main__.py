"""`python -m tests.servers stop`: end the PostgreSQL servers that test runs of this checkout have left running."""

from __future__ import annotations

import sys

from .shared_postgres import SharedPostgres, server_folders


def main() -> None:
    """Do what the one argument says."""
    if sys.argv[1:] != ["stop"]:
        sys.exit(__doc__)
    stopped = [folder for folder in server_folders() if SharedPostgres(folder).stop()]
    sys.stdout.write(f"stopped {len(stopped)} of {len(server_folders())}\n" if stopped else "none was running\n")


if __name__ == "__main__":
    main()
