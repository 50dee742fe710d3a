"""Answers on their way to a client: from the engine's thread into asyncio, and out as events."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import Request

from voicetextblender.model.generate import Chunk
from voicetextblender.serve.engine import Event

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Mailbox:
    """Takes a request's events from the engine's thread; iterate over it for the chunks.

    Raises what the engine delivers instead of a chunk.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def deliver(self, event: Event) -> None:
        """Put an event in; called from another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield chunks until the last."""
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if event.finished:
                return

    async def all(self) -> list[Chunk]:
        """Return all chunks."""
        return [chunk async for chunk in self]


def event_line(body: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` returns; give it up if the client goes away. Raises ClientGone."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


def last_words(problem: Exception) -> str:
    """Return the event that ends a stream with a failure; it tells what a client may know."""
    message = str(problem) if isinstance(problem, TimeoutError) else "the answer broke off"
    return event_line({"error": {"message": message, "type": "server_error"}})
