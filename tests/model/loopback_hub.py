"""A hub on the loopback address that serves one model as the real one does, or goes wrong as a test asks."""

from __future__ import annotations

import hashlib
import json
import socket
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/tiny"


class Hub(BaseHTTPRequestHandler):
    """A hub of one model: what the real one answers to the requests that a download makes, and what it may do wrong."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    requests: ClassVar[list[str]]
    fail: ClassVar[dict[str, list[int]]]  # method and path's end → statuses to answer, one after the other
    break_after: ClassVar[list[int]]  # bytes of the weights after which the connection goes, one after the other
    lie: ClassVar[bool]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        for end, statuses in self.fail.items():
            if path.endswith(end) and statuses:
                return self.say(statuses.pop(0), b"no")
        if path.startswith("/api/models/"):
            return self.list(path)
        start = f"/{REPO}/resolve/{COMMIT}/"
        file = self.folder / path.removeprefix(start)
        if not path.startswith(start) or not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self.send(file, body)

    def list(self, path: str) -> None:
        if path not in (f"/api/models/{REPO}/revision/main", f"/api/models/{REPO}/revision/{COMMIT}"):
            if path.startswith(f"/api/models/{REPO}/"):
                return self.say(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.say(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
        return self.say(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": files}).encode())

    def send(self, file: Path, body: bool) -> None:
        content = file.read_bytes()
        hashed = content + b"!" if self.lie else content
        large = file.suffix == ".safetensors"
        sha256 = hashlib.sha256(hashed).hexdigest()
        etag = sha256 if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        part = content[first:]
        cut = self.break_after.pop(0) if body and large and self.break_after else None
        self.say(206 if wanted else 200, part if body else b"", headers, len(part), cut)

    def say(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        length: int = -1,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length if length >= 0 else len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass
