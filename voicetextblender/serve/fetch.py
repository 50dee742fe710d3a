"""Recordings at http addresses: fetched only from public hosts, whatever names and redirects say.

The name is resolved once, every address it has must be public, and the connection goes to the very
address that was checked, so that a name which answers differently the second time gains nothing.
"""

import ipaddress
import socket
import ssl
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urljoin, urlsplit

MAX_REDIRECTS = 3
TIMEOUT_S = 10.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # leads to any IPv4 address, internal ones too


def fetch(url: str, max_bytes: int) -> bytes:
    """Return what lies at an http(s) address. Raises ValueError if it cannot or may not be had."""
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("audio_url must be a data, http or https address")
        try:
            with closing(_connect(parts.scheme, parts.hostname, parts.port)) as connection:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", path, headers={"User-Agent": "voicetextblender"})
                response = connection.getresponse()
                if 300 <= response.status < 400 and (target := response.headers["Location"]):
                    url = urljoin(url, target)
                    continue
                return _body(response, max_bytes)
        except (OSError, HTTPException, UnicodeError):
            raise ValueError("audio_url cannot be reached; send the recording itself") from None
    raise ValueError(f"audio_url leads on more than {MAX_REDIRECTS} times; name the file itself")


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        raise ValueError(f"audio_url answers {response.status}; send the recording itself")
    body, until = bytearray(), time.monotonic() + 3 * TIMEOUT_S
    while piece := response.read1(2**16):
        body += piece
        if len(body) > max_bytes or time.monotonic() > until:
            raise ValueError(
                f"audio_url holds more than {max_bytes / 2**20:.0f} MiB, or sends it too slowly; "
                f"cut the recording, or send it yourself"
            )
    return bytes(body)


def _connect(scheme: str, host: str, port: int | None) -> HTTPConnection:
    """Return a connection to a public address of the host. Raises ValueError or OSError."""
    port = port or (443 if scheme == "https" else 80)
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not all(map(is_public, found)):
        raise ValueError("audio_url leads to an address that is not public; send the recording")
    stream = socket.create_connection((found[0], port), TIMEOUT_S)
    if scheme == "https":
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=TIMEOUT_S)
        stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
    else:
        connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
    connection.sock = stream
    return connection


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    return ip.is_global and not ip.is_multicast and ip not in NAT64
