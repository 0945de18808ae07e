"""A web server on loopback that can break off, refuse ranges and lie, and remembers what it was asked."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class ArchiveServer:
    """Serves `content` at `url`.

    Each entry of `cuts` is the number of bytes after which one answer breaks off; `knows_ranges` says whether
    a part can be asked for, and `status`, if it is set, is all that the server answers. `asked` holds the
    header Range of each request.
    """

    url: str
    content: bytes
    cuts: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0


@contextmanager
def serving(content: bytes) -> Iterator[ArchiveServer]:
    """A server of `content` that runs inside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers.get("Range"))
            if state.status is not None:
                self.send_error(state.status)
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked and state.knows_ranges else 0
            total = len(state.content)
            if start and start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            body = body[: state.cuts.pop(0)] if state.cuts else body
            self.wfile.write(body)
            state.sent += len(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = ArchiveServer(f"http://127.0.0.1:{server.server_address[1]}/data.tar.gz", content)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
