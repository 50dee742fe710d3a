"""The HTTP server: OpenAI's routes, answered by the engine.

Shapes of requests and answers are in `api.py`, recordings in `recordings.py`; who may ask how much
is in `guard.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from voicetextblender.serve import recordings
from voicetextblender.serve.api import ChatRequest, Reply, new_reply, read_messages
from voicetextblender.serve.captions import conversing
from voicetextblender.serve.config import ServerConfig
from voicetextblender.serve.engine import Engine
from voicetextblender.serve.engine import Request as Asked
from voicetextblender.serve.fetch import fetch
from voicetextblender.serve.guard import ERRORS, Guard, add_errors, error
from voicetextblender.serve.metrics import Measure, Metrics
from voicetextblender.serve.stream import Mailbox, event_line, last_words, while_connected

LONGEST_ANSWER = 512
"""Tokens of an answer whose length is not asked for."""
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}


def build_app(engine: Engine, settings: ServerConfig = ServerConfig()) -> FastAPI:
    """Return the application; it closes the engine when it is shut down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_sync(engine.close, settings.grace_s)

    app = FastAPI(title="voicetextblender", lifespan=lifespan)
    app.state.engine = engine
    metrics = Metrics(engine)
    add_errors(app)
    _add_chat(app, engine, settings)
    recordings.add_routes(app, engine, settings)
    _add_watch(app, engine, metrics)
    app.add_middleware(Guard, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_middleware(Measure, metrics=metrics)
    return app


def serve(engine: Engine, settings: ServerConfig = ServerConfig()) -> None:
    """Serve until told to stop (SIGTERM, Ctrl-C); what runs then is finished first."""
    import uvicorn

    uvicorn.run(
        build_app(engine, settings),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=int(settings.grace_s),
        server_header=False,
        log_level="warning",
    )


def _add_chat(app: FastAPI, engine: Engine, settings: ServerConfig) -> None:
    submit = conversing(engine)

    @app.post("/v1/chat/completions", responses=ANSWERS | ERRORS, response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation that may hold recordings in any user turn."""
        question = await run_sync(
            read_messages, body, settings.max_clip_s, partial(_fetch, settings=settings)
        )
        decoding = body.decoding(LONGEST_ANSWER)
        mailbox = Mailbox()
        asked = await run_sync(
            lambda: submit(
                question.conversation,
                question.clips,
                decoding,
                voice=body.voice,
                deliver=mailbox.deliver,
            )
        )
        reply = new_reply(engine.info.name)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(
                _stream(asked, mailbox, reply, with_usage), media_type="text/event-stream"
            )
        try:
            chunks = await while_connected(request, mailbox.all())
        finally:
            asked.cancel()
        return JSONResponse(reply.whole(chunks, asked.prompt_tokens, asked.num_tokens))


def _fetch(url: str, settings: ServerConfig) -> bytes:
    if not settings.allow_http_audio:
        raise ValueError(
            "audio_url must be a data URL: this server fetches nothing; send the recording itself"
        )
    return fetch(url, settings.max_request_mb * 2**20)


async def _stream(
    asked: Asked, mailbox: Mailbox, reply: Reply, with_usage: bool
) -> AsyncIterator[str]:
    """Yield server-sent events; a client that goes away ends the answer."""
    try:
        yield event_line(reply.piece(None))
        async for chunk in mailbox:
            yield event_line(reply.piece(chunk))
        if with_usage:
            yield event_line(reply.usage(asked.prompt_tokens, asked.num_tokens))
        yield "data: [DONE]\n\n"
    except (TimeoutError, RuntimeError) as problem:
        yield last_words(problem)
    finally:
        asked.cancel()


def _add_watch(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get("/v1/models", responses={401: ERRORS[401], 429: ERRORS[429]})
    async def models() -> dict[str, Any]:
        """Name the model."""
        info = engine.info
        model = {
            "id": info.name,
            "object": "model",
            "created": engine.started,
            "owned_by": "voicetextblender",
            "llm": info.llm,
            "encoder": info.encoder,
            "context": info.context,
            "precision": info.precision,
        }
        return {"object": "list", "data": [model]}

    @app.get("/health", responses={503: ERRORS[503]}, response_model=None)
    async def health() -> Response:
        """Say whether requests are taken."""
        if not engine.is_well:
            return error(503, "the model does not answer", "server_error", retry_after_s=5)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> str:
        """Tell Prometheus what was done."""
        return str(metrics)
