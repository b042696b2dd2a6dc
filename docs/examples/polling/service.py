"""A stand-in for the service: a job is done after it has been looked at some times. It fails now and then."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

jobs: dict[str, int] = {}
keys: dict[str, str] = {}
requests = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        if key not in keys:
            keys[key] = f"job-{len(keys) + 1}"
            jobs[keys[key]] = 0
        self.answer(201, {"id": keys[key]})

    def do_GET(self) -> None:
        job = self.path.rpartition("/")[2]
        if jobs[job] == 50 and not Path("was-away").exists():
            Path("was-away").touch()
            return self.answer(503, {"error": "try again"})
        percent, jobs[job] = jobs[job], min(jobs[job] + 25, 100)
        self.answer(200, {"percent": percent, "url": f"https://example.org/{job}.mp4"})

    def do_DELETE(self) -> None:
        self.answer(200, {"stopped": jobs.pop(self.path.rpartition("/")[2])})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


if __name__ == "__main__":
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Path("service.url").write_text(f"http://127.0.0.1:{server.server_port}")
        print("listening", flush=True)
        server.serve_forever()
