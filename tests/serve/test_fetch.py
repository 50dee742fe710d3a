import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from voicetextblender.serve import fetch as module
from voicetextblender.serve.fetch import fetch, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0"),
        *("fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1"),
    ],
)
def test_addresses_of_the_inside_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://localhost:22/", "http://[::1]/", "http://0x7f.1/"),
        *("http://2130706433/", "http://127.1/", "http://169.254.169.254/latest/meta-data"),
    ],
)
def test_the_inside_is_refused_however_it_is_spelt(url):
    with pytest.raises(ValueError, match="not public|cannot be reached"):
        fetch(url, 100)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "gopher://a", "/etc/passwd", "http://", "//a/b"]
)
def test_other_schemes_are_refused(url):
    with pytest.raises(ValueError, match="must be a data, http or https address"):
        fetch(url, 100)


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, _, rest = self.path.strip("/").partition("/")
        self.send_response(302 if kind == "to" else 404 if kind == "none" else 200)
        if kind == "to":
            self.send_header("Location", rest)
        self.end_headers()
        if kind == "bytes":
            self.wfile.write(b"x" * int(rest))

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    """A real server, at an address that counts as public for this test alone."""
    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_lies_there_is_returned_up_to_the_limit(site):
    assert fetch(f"{site}/bytes/99", 100) == b"x" * 99
    assert fetch(f"{site}/to//bytes/5", 100) == b"x" * 5
    with pytest.raises(ValueError, match="holds more than"):
        fetch(f"{site}/bytes/101", 100)
    with pytest.raises(ValueError, match="answers 404"):
        fetch(f"{site}/none", 100)


@pytest.mark.parametrize("target", ["http://10.0.0.1/", "http://[::1]:1/", "file:///etc/passwd"])
def test_a_redirect_to_the_inside_is_refused(site, target):
    with pytest.raises(ValueError, match="not public|must be a data"):
        fetch(f"{site}/to/{target}", 100)


def test_redirects_end(site):
    with pytest.raises(ValueError, match="leads on more than 3 times"):
        fetch(f"{site}/to//to//to//to//to//bytes/1", 100)


def test_a_name_that_leads_inside_is_refused_and_asked_for_once(monkeypatch):
    """A name may answer with a public address first and an internal one later (rebinding)."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        inside = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (inside, port))]

    connected = []

    def connect(address, timeout):
        connected.append(address)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ValueError, match="cannot be reached"):
        fetch("http://rebind.example/", 100)
    assert connected == [("93.184.216.34", 80)] and len(asked) == 1
    with pytest.raises(ValueError, match="not public"):
        fetch("http://rebind.example/", 100)
