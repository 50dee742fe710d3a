import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from voicetextblender.model.parts import resolve
from voicetextblender.synth.writers import load_writer


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.remote._FIRST_WAIT_S", 0.001)


@pytest.fixture
def need_part():
    """Skip a test whose large model part is in no package here, and say what installs it."""

    def need(alias):
        try:
            resolve(alias)
        except ValueError as missing:
            pytest.skip(str(missing))

    return need


@contextmanager
def serving(answer):
    """Yield the address of a service on this machine.

    `answer` maps the path, the headers and the body that it is sent to a status code and bytes.
    """

    class Service(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code, said = answer(self.path, self.headers, body)
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            with suppress(BrokenPipeError):  # whoever asked would not wait
                self.wfile.write(said)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def service(monkeypatch):
    """A service that answers as `answers` says, and keeps what it was asked."""

    def answer(*asked):
        told.asked.append(asked)
        # The last answer is given again, however often it is asked for.
        return told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(answer) as url:
        told = SimpleNamespace(asked=[], answers=[(200, b"")], url=url)
        yield told


@pytest.fixture
def llm(monkeypatch):
    """A language model: `reply` maps messages to a text, or to a status code."""

    def answer(path, _, body):
        asked = json.loads(body)
        model.asked.append((path, asked))
        said = model.reply(asked["messages"])
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        code = said if isinstance(said, int) else 200
        return code, json.dumps({"choices": [choice]}).encode()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    load_writer.cache_clear()
    with serving(answer) as url:
        model = SimpleNamespace(asked=[], reply=lambda messages: "Yes.", name=f"{url}#tiny")
        yield model
