"""Speech services that speak the OpenAI protocol, with nothing but the standard library.

A service is named by its base URL and, behind `#`, the voice or model that is asked for:
`http://localhost:8880/v1#af_heart`. If it wants a key, the key is in VTB_API_KEY.
"""

import os
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

_TIMEOUT_S = 120.0
_NUM_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5  # doubled before every further attempt
_LONGEST_ANSWER = 1 << 26  # bytes: half an hour of WAV


@dataclass(frozen=True, slots=True)
class Service:
    """Where to ask, and for what."""

    base: str
    """Such as `http://localhost:8880/v1`."""
    asked: str
    """What stands behind `#`: a voice, or a model."""
    model: str | None
    """The `?model=` of the name, if there is one."""


class NoAnswer(ValueError):
    """The service could not be reached, or was not able to answer, whatever it was asked."""


def is_url(name: str) -> bool:
    """Tell whether a name is that of a service."""
    return name.startswith(("http://", "https://"))


def parse_service(name: str, what: str) -> Service:
    """Read `http://host/v1?model=M#WHAT`. Raises ValueError if it is no such name."""
    url = urlsplit(name)
    if not url.netloc or not url.fragment:
        raise ValueError(
            f"'{name}' must be the URL of a service with the {what} behind '#', such as "
            f"http://localhost:8000/v1#{what}"
        )
    base = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
    return Service(base, url.fragment, parse_qs(url.query).get("model", [None])[0])


def post(url: str, body: bytes, content_type: str) -> bytes:
    """Send a request and return the answer's bytes.

    What may pass (no connection, no answer in time, 429, 5xx) is tried again, after growing waits.
    Raises NoAnswer if it does not pass, and ValueError if the answer is another error.
    """
    for attempt in range(_NUM_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            return _post(url, body, content_type)
        except NoAnswer:
            if attempt + 1 == _NUM_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _post(url: str, body: bytes, content_type: str) -> bytes:
    headers = {"Content-Type": content_type}
    if key := os.environ.get("VTB_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    opener = build_opener(_NoRedirect)
    try:
        with opener.open(Request(url, body, headers), timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(_LONGEST_ANSWER + 1)
    except HTTPError as error:
        with error:
            said = error.read(200).decode("utf-8", "replace").strip()
        kind = NoAnswer if error.code == 429 or error.code >= 500 else ValueError
        raise kind(f"{url}: answered {error.code} {error.reason}: {said}") from None
    except (URLError, HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise NoAnswer(
            f"{url}: no answer ({reason}); check that the service runs and that the URL is right"
        ) from None
    if len(data) > _LONGEST_ANSWER:
        raise ValueError(f"{url}: the answer is longer than {_LONGEST_ANSWER >> 20} MB")
    return data


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: it would carry the key to a host that nobody named."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> None:
        return None
