"""`python -m interlock.cli.dev.fake_redis PORT`: fakeredis' server, for trying Interlock where no Redis can be installed."""

from __future__ import annotations

import sys
from socketserver import StreamRequestHandler

from fakeredis import TcpFakeServer

__all__ = ["main"]


def main(port: int) -> None:
    """Serve on a port of 127.0.0.1 until the process is ended."""
    # Nagle's algorithm would delay each of its small replies by 40 ms.
    StreamRequestHandler.disable_nagle_algorithm = True
    server = TcpFakeServer(("127.0.0.1", port))
    server.daemon_threads = True
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
