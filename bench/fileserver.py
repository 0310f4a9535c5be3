"""Serves one large film under every path, from the page cache by sendfile: what stands between it and the disk is the client.

`python -m bench.fileserver --size BYTES --file PATH --port PORT [--rate BYTES_PER_SECOND]`; prints `ready`.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import threading
import time
from pathlib import Path

BLOCK = 1024 * 1024


def made(path: Path, size: int) -> Path:
    """A file that begins as an mp4 does and cannot be compressed."""
    dice = random.Random(7)
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypmp42".ljust(32, b"\0"))
        for at in range(32, size, BLOCK):
            file.write(dice.randbytes(min(BLOCK, size - at)))
    return path


def serve(wire: socket.socket, path: Path, rate: float) -> None:
    """Every request of one connection."""
    size = path.stat().st_size
    with wire, path.open("rb") as file:
        while request := wire.recv(65536):
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "film"\r\nContent-Type: video/mp4\r\n\r\n'
            wire.sendall(head.encode())
            began, at = time.monotonic(), 0
            while at < size and not request.startswith(b"HEAD"):
                at += os.sendfile(wire.fileno(), file.fileno(), at, BLOCK if rate else size - at)
                if rate:
                    time.sleep(max(0.0, began + at / rate - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second on each connection; 0: no bound")
    options = parser.parse_args()
    path = made(options.file, options.size)
    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    print("ready", flush=True)
    while True:
        wire, _ = listener.accept()
        threading.Thread(target=_quietly, args=(wire, path, options.rate), daemon=True).start()


def _quietly(wire: socket.socket, path: Path, rate: float) -> None:
    try:
        serve(wire, path, rate)
    except OSError:
        return  # the client went away


if __name__ == "__main__":
    main()
