import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from voicetextblender.synth.writers import load_writer


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.remote._FIRST_WAIT_S", 0.001)


@pytest.fixture
def service(monkeypatch):
    """A service on this machine: answers as `answers` says, and keeps what it was asked."""

    class Service(BaseHTTPRequestHandler):
        asked = []
        answers = [(200, b"")]

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Service.asked.append((self.path, self.headers, body))
            # The last answer is given again, however often it is asked for.
            code, answer = Service.answers[0]
            del Service.answers[0 : len(Service.answers) > 1]
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


@pytest.fixture
def llm(monkeypatch):
    """A language model on this machine: `reply` maps messages to a text, or to a status code."""

    class Llm(BaseHTTPRequestHandler):
        asked = []
        reply = staticmethod(lambda messages: "Yes.")

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Llm.asked.append((self.path, body))
            said = Llm.reply(body["messages"])
            self.send_response(said if isinstance(said, int) else 200)
            self.end_headers()
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    load_writer.cache_clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Llm)
    Llm.name = f"http://127.0.0.1:{server.server_port}/v1#tiny"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Llm
    server.shutdown()
    server.server_close()
