"""A file server for the download tests, with faults to choose from."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, field

FILM = b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(300_000)
SHA = hashlib.sha256(FILM).hexdigest()


@dataclass
class Files:
    """A file server: honours Range and If-Range, and cuts each answer after `cut` bytes."""

    content: bytes = FILM
    etag: str | None = '"v1"'
    cut: int | None = None
    ranges: bool = True
    extra: dict[str, str] = field(default_factory=dict)
    served: int = 0

    def __call__(self, wire, request: bytes) -> None:
        asked = re.search(rb"\r\nRange: bytes=(\d+)-\r\n", request)
        condition = re.search(rb"\r\nIf-Range: ([^\r]+)\r\n", request)
        start = int(asked[1]) if asked and self.ranges and condition and condition[1].decode() == self.etag else 0
        head = {"Content-Length": str(len(self.content) - start)} | ({"ETag": self.etag} if self.etag else {})
        status = "200 OK"
        if start >= len(self.content) > 0:
            status, head = "416 No", {"Content-Range": f"bytes */{len(self.content)}", "Content-Length": "0"}
        elif start:
            status = "206 Part"
            head["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in (head | self.extra).items())
        body = b"" if status.startswith("416") else self.content[start:]
        sent = body if self.cut is None else body[: self.cut]
        self.served += len(sent)
        wire.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + sent)
        if sent != body:
            raise OSError
