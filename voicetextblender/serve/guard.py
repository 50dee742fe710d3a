"""What keeps a server well: keys, sizes, rates, and errors that say enough and no more."""

import hashlib
import hmac
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from voicetextblender.serve.config import ServerConfig
from voicetextblender.serve.engine import BusyError
from voicetextblender.serve.stream import ClientGone

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/metrics")
"""Paths that need no key and count for no rate: what watches over servers asks there."""
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be answered as it is"},
    401: {"description": "No valid key"},
    413: {"description": "The request is too large"},
    429: {"description": "Too many requests of this client; see Retry-After"},
    503: {"description": "Too much to do; see Retry-After"},
}
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered."""


def error(
    status: int, message: str, kind: str = "invalid_request_error", retry_after_s: float = 0
) -> JSONResponse:
    """Return an error in OpenAI's form; with `retry_after_s` it says when to come again."""
    headers = {"Retry-After": str(math.ceil(retry_after_s))} if retry_after_s else None
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, headers)


class Guard:
    """Lets a request through to the application if its key, rate and size are right."""

    def __init__(self, app: App, settings: ServerConfig) -> None:
        self.app = app
        self.keys = [_digest(key) for key in settings.api_keys]
        self.max_bytes = settings.max_request_mb * 2**20
        self.rate = settings.requests_per_minute / 60
        self.burst = max(1.0, 10 * self.rate)  # what ten seconds allow may come at once
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client → requests that it may make, and when that was so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request."""
        if scope["type"] != "http" or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(b"authorization", b"").removeprefix(b"Bearer ").decode("latin-1")
        if refusal := self._refusal(key, headers, scope.get("client")):
            await refusal(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        await self.app(scope, counted, send)

    def _refusal(
        self, key: str, headers: dict[bytes, bytes], client: tuple[str, int] | None
    ) -> JSONResponse | None:
        if self.keys and not self._is_known(key):
            return error(
                401,
                "no valid API key; send 'Authorization: Bearer KEY' with a key of this server",
                "authentication_error",
            )
        who = _digest(key).hex() if self.keys else client[0] if client else ""
        if wait_s := self._wait(who):
            return error(429, "too many requests; slow down", "rate_limit_error", wait_s)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            return error(413, self._too_large())
        return None

    def _is_known(self, key: str) -> bool:
        # Every key is compared, in constant time: how long it takes tells nothing.
        given = _digest(key)
        return sum(hmac.compare_digest(given, known) for known in self.keys) > 0

    def _wait(self, client: str) -> float:
        """Count a request; return the seconds to wait if there were too many."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        left, since = self.buckets.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        self.buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self.buckets) > MAX_CLIENTS:
            self.buckets.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.rate

    def _too_large(self) -> str:
        limit = self.max_bytes / 2**20
        return f"the request is larger than {limit:.0f} MiB; send a shorter or packed recording"


def add_errors(app: FastAPI) -> None:
    """Turn exceptions into OpenAI's errors; no client ever sees where in the code they arose."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:]) or "the body"
        return error(400, f"{where}: {first['msg']}")

    @app.exception_handler(ValueError)
    async def refused(request: Request, problem: ValueError) -> JSONResponse:
        return error(400, str(problem))

    @app.exception_handler(BusyError)
    async def busy(request: Request, problem: BusyError) -> JSONResponse:
        return error(503, str(problem), "overloaded_error", problem.retry_after_s)

    @app.exception_handler(TimeoutError)
    async def late(request: Request, problem: TimeoutError) -> JSONResponse:
        return error(503, str(problem), "overloaded_error", retry_after_s=5)

    @app.exception_handler(ClientGone)
    async def gone(request: Request, problem: ClientGone) -> JSONResponse:
        return error(499, "the client closed the connection")

    @app.exception_handler(HTTPException)
    async def wrong(request: Request, problem: HTTPException) -> JSONResponse:
        return error(problem.status_code, str(problem.detail))

    @app.exception_handler(Exception)
    async def broken(request: Request, problem: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=problem)
        return error(500, "the server failed at this request; its log says why", "server_error")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
