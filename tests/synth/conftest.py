import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def service(monkeypatch):
    """A service on this machine: answers as `answers` says, and keeps what it was asked."""

    class Service(BaseHTTPRequestHandler):
        asked = []
        answers = [(200, b"")]

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Service.asked.append((self.path, self.headers, body))
            code, answer = Service.answers.pop(0)
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    Service.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Service
    server.shutdown()
    server.server_close()
