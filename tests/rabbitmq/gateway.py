"""A way to a broker that can be cut: what a server that others use too cannot be asked to do."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Gateway"]

_AMQP_PORT = 5672


class Gateway:
    """Passes connections of 127.0.0.1 on to a broker, while it is open."""

    def __init__(self, url: str) -> None:
        """Begin to listen; every connection goes where `url` leads."""
        parts = urlsplit(url)
        self._to = (parts.hostname or "127.0.0.1", parts.port or _AMQP_PORT)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_open = True
        who = f"{parts.username}:{parts.password}@" if parts.username else ""
        self.url = f"{parts.scheme}://{who}127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        """Return the gateway."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut it for ever."""
        self.cut()
        self._listener.close()

    def cut(self) -> int:
        """Break every connection, and every new one until `mend`; returns how many were broken."""
        with self._lock:
            self._is_open = False
            broken, self._sockets = self._sockets, []
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        return len(broken) // 2

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_open = True

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self._pass_on(self._listener.accept()[0])

    def _pass_on(self, near: socket.socket) -> None:
        with self._lock:
            if not self._is_open:
                near.close()
                return
            far = socket.create_connection(self._to)
            self._sockets += [near, far]
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
