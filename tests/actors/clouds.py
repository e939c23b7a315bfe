"""Real HTTP servers on this machine that answer as the metadata services of AWS, GCP and Azure do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-of-the-second-version"


class Cloud:
    """What a service says next: `notice` is the body of its notice, none by default."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.notice: str | None = None
        self.asked: list[str] = []
        """Paths, in order."""
        self.url = ""

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        self.asked.append(path)
        return getattr(self, self.kind)(method, path, headers)

    def aws(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if path == "/latest/api/token":
            asked = method == "PUT" and headers["X-aws-ec2-metadata-token-ttl-seconds"]
            return (200, TOKEN, {}) if asked else (405, "", {})
        if headers["X-aws-ec2-metadata-token"] != TOKEN:
            return 401, "Unauthorized", {}
        if path == "/latest/meta-data/events/recommendations/rebalance":
            return 200, '{"noticeTime": "2026-01-01T00:00:00Z"}', {}
        if path == "/latest/meta-data/spot/instance-action" and self.notice is not None:
            return 200, self.notice, {}
        return 404, "Not Found", {}

    def gcp(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if headers["Metadata-Flavor"] != "Google":
            return 403, "Missing Metadata-Flavor:Google header.", {}
        if method == "GET" and path == "/computeMetadata/v1/instance/preempted":
            return 200, self.notice or "FALSE", {"Metadata-Flavor": "Google"}
        return 404, "", {}

    def azure(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        if headers["Metadata"] != "true":
            return 400, '{"error": "Bad request. Required metadata header not specified"}', {}
        if method == "GET" and path.startswith("/metadata/scheduledevents?api-version="):
            events = json.loads(self.notice) if self.notice else []
            return 200, json.dumps({"DocumentIncarnation": len(events), "Events": events}), {}
        if method == "GET" and path.startswith("/metadata/instance/compute/name?api-version="):
            return 200, "worker_7", {}
        return 404, "", {}

    def stranger(self, method: str, path: str, headers: Any) -> tuple[int, str, dict[str, str]]:
        """A web server that knows nothing of clouds and has a page for everything."""
        return 200, "<html>Welcome to this network</html>", {}


@contextmanager
def cloud(kind: str) -> Iterator[Cloud]:
    """`aws`, `gcp`, `azure` or `stranger`."""
    made = Cloud(kind)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, more = made.answer(self.command, self.path, self.headers)
            data = body.encode()
            self.send_response(status)
            for name, value in {**more, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
