"""A W&B server that takes a run and then is gone, refuses a key, or does not know what it is asked.

python fake_wandb.py PORT_FILE vanish|refuse|fail
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RUN = {
    "id": "UnVuOjE=",
    "name": "run",
    "displayName": "run",
    "config": "{}",
    "project": {"id": "p", "name": "distil", "entity": {"id": "e", "name": "me"}},
    "historyLineCount": 0,
}
ANSWERS: dict[str, Any] = {
    "Viewer": {
        "viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
    },
    "RunResumeStatus": {"model": {"id": "p", "name": "distil", "entity": RUN["project"], "bucket": None}},
}


class Handler(BaseHTTPRequestHandler):
    """Answers by the name of the query."""

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def _send(self, value: Any, code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        how = sys.argv[2]
        if how == "refuse":
            self._send({"errors": [{"message": "user is not logged in"}]}, 401)
        elif how == "fail":
            self._send({}, 501)
        elif self.path.endswith("/file_stream"):
            os._exit(0)  # the first scalars: in the middle of training
        elif self.path == "/graphql":
            asked = json.loads(body)
            query, variables = asked["query"], asked.get("variables") or {}
            if "UpsertBucket" in query:
                bucket = RUN | {"name": variables.get("name")}
                self._send({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
                return
            named = [answer for name, answer in ANSWERS.items() if name in query]
            self._send({"data": named[0] if named else {}})
        else:
            self._send({})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Path(sys.argv[1]).write_text(str(server.server_port))
    server.serve_forever()
