"""A TCP proxy with faults to choose from: it passes bytes on, and breaks connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self


class FaultProxy:
    """Listens on loopback in front of `port`. The next `cuts_left` connections are reset once `cut_after` bytes went up.

    While `flowing` is down all connections stand still there; `standing` is raised by the first that does.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.cut_after, self.cuts_left = 0, 0
        self.refusing = False
        self.flowing, self.standing = threading.Event(), threading.Event()
        self.flowing.set()
        self.connections = self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refusing:
                self._reset(inner)
                continue
            threading.Thread(target=self._connect, args=(inner,), daemon=True).start()

    def _connect(self, inner: socket.socket) -> None:
        """Both ends are closed here, once neither direction reads any more: who closes in one of them races the other."""
        with inner, socket.create_connection(("127.0.0.1", self._to)) as outer:
            upwards = threading.Thread(target=self._pass, args=(inner, outer), kwargs={"up": True}, daemon=True)
            upwards.start()
            self._pass(outer, inner, up=False)
            upwards.join()

    def _pass(self, source: socket.socket, target: socket.socket, *, up: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                passed += len(block)
                if up and self.cuts_left and passed > self.cut_after:
                    self.cuts_left -= 1
                    self.cuts += 1
                    self._reset(source)
                    target.shutdown(socket.SHUT_RDWR)
                    return
                if up and passed > self.cut_after and not self.flowing.is_set():
                    self.standing.set()
                    self.flowing.wait()
                target.sendall(block)
        for wire in (source, target):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _reset(wire: socket.socket) -> None:
        with contextlib.suppress(OSError):
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flowing.set()
        self._listener.close()
