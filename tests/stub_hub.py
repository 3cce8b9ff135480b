"""A Hugging Face hub on this machine that serves folders, so that the hub's real client is tested without network."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

COMMIT = "1" * 40
API = re.compile(r"/api/(models|datasets)/(?P<repo>[\w-]+/[\w-]+)(?P<rest>/.*)?")
FILE = re.compile(r"(/datasets)?/(?P<repo>[\w-]+/[\w-]+)/resolve/[^/]+/(?P<file>.*)")


class StubHub:
    """Serves `root/<user>/<name>` as a repository at one commit; `gated` repositories exist but may not be read.

    Whoever sends a token may make repositories and commit small files to them.
    """

    def __init__(self, root: Path, gated: tuple[str, ...] = ()) -> None:
        handler = type("Handler", (_Handler,), {"root": root, "gated": gated})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.root, self.url = root, f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def repository(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def close(self) -> None:
        """From here on the hub cannot be reached: connections are refused."""
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    root: Path
    gated: tuple[str, ...]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        match = API.fullmatch(path) or FILE.fullmatch(path)
        if match is None or not (self.root / match["repo"]).is_dir():
            kind = ("403", "GatedRepo") if match and match["repo"] in self.gated else ("404", "RepoNotFound")
            return self._reply(int(kind[0]), b"{}", {"X-Error-Code": kind[1]})
        folder = self.root / match["repo"]
        if "file" in match.groupdict():
            return self._send_file(folder / match["file"])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if (match["rest"] or "").startswith("/tree/"):
            return self._reply(200, json.dumps([_entry(path, folder) for path in files]).encode())
        siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
        return self._reply(200, json.dumps({"id": match["repo"], "sha": COMMIT, "siblings": siblings}).encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body, path = self.rfile.read(int(self.headers["Content-Length"])), self.path.split("?")[0]
        if not self.headers.get("Authorization"):
            return self._reply(401, b'{"error": "Invalid username or password."}')
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            (self.root / name).mkdir(parents=True, exist_ok=True)
            return self._reply(200, json.dumps({"url": f"http://{self.headers['Host']}/{name}"}).encode())
        if path == "/api/validate-yaml":
            metadata = json.loads(body)["content"].split("---\n")[1]
            sound = isinstance(yaml.safe_load(metadata), dict)
            return self._reply(200 if sound else 400, b"{}")
        match = API.fullmatch(path)
        if match is None or not (self.root / match["repo"]).is_dir():
            return self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if match["rest"].startswith("/preupload/"):
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self._reply(200, json.dumps({"files": modes}).encode())
        return self._commit(self.root / match["repo"], body)

    def _commit(self, folder: Path, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        url = f"http://{self.headers['Host']}/{folder.parent.name}/{folder.name}/commit/{COMMIT}"
        self._reply(200, json.dumps({"commitOid": COMMIT, "commitUrl": url}).encode())

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            return self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        return self._reply(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(path: Path, folder: Path) -> dict[str, object]:
    digest = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "oid": digest}
