"""`python -m interlock.cli.fake_redis PORT`: fakeredis' server, for trying Interlock where no Redis can be installed."""

from __future__ import annotations

import sys

from fakeredis import TcpFakeServer

__all__ = ["main"]


def main(port: int) -> None:
    """Serve on a port of 127.0.0.1 until the process is ended."""
    server = TcpFakeServer(("127.0.0.1", port))
    # Nagle's algorithm delays each of its small replies by 40 ms.
    server.RequestHandlerClass.disable_nagle_algorithm = True
    server.daemon_threads = True
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
