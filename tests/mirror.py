"""A web server on this machine that misbehaves in the ways that servers do."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DROP_BYTES = 1 << 16


@dataclass
class Mirror:
    """`modes` are used up one a request, the last one for good; `ranges` records what was asked for."""

    content: bytes
    modes: list[str] = field(default_factory=lambda: ["normal"])
    etag: str | None = '"version-1"'
    location: str = ""
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def next_mode(self) -> str:
        return self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.paths.append(self.path)
        mirror.ranges.append(self.headers["Range"])
        mode = mirror.next_mode()
        if mode == "redirect":
            self._answer(302, b"", {"Location": mirror.location})
        elif mode.isdigit():
            self._answer(int(mode), b"no")
        elif mode == "html":
            self._answer(200, b"<html>log in first</html>", {"Content-Type": "text/html"})
        else:
            self._send_file(mode)

    def _send_file(self, mode: str) -> None:
        mirror, start = self.mirror, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, mirror.etag)
        headers = {"ETag": mirror.etag} if mirror.etag else {}
        if asked and same and not mode.startswith("ignore-range"):
            start, total = int(asked[1]), len(mirror.content)
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        body = mirror.content[start:]
        sent = body[:DROP_BYTES] if mode in ("drop", "ignore-range-and-drop") else body
        self._answer(206 if start else 200, sent, headers, length=len(body))

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002
        pass


@contextmanager
def serve(mirror: Mirror) -> Iterator[Mirror]:
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}/archive.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
