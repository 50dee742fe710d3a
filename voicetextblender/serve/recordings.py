"""The routes that transcribe and translate recordings, as OpenAI has them."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import numpy as np
from anyio.to_thread import run_sync
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.serve.api import FORMATS
from voicetextblender.serve.config import ServerConfig
from voicetextblender.serve.engine import BusyError, Engine
from voicetextblender.serve.guard import ERRORS
from voicetextblender.serve.stream import event_line, last_words, while_connected
from voicetextblender.serve.transcribe import (
    Segment,
    Task,
    Transcript,
    join,
    segments_of,
    to_srt,
    to_vtt,
)
from voicetextblender.speech import read_blocks
from voicetextblender.text import LANGUAGES

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What is said",
        "content": {
            kind: {} for kind in ("application/json", "text/plain", "text/vtt", "text/event-stream")
        },
    }
}
Format = Literal["json", "text", "srt", "vtt", "verbose_json"]


class _Recording:
    """An uploaded recording on its way through the engine."""

    def __init__(self, data: bytes, name: str, task: Task, longest_s: float) -> None:
        self.data = data
        suffix = name.rpartition(".")[2].lower()
        self.name = f"file.{suffix}" if suffix in FORMATS else "file"
        self.task = task
        self.longest_s = longest_s
        self.seconds = 0.0
        self.segments: list[Segment] = []

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file minute by minute. Raises ValueError if it is no sound or too long."""
        for block in read_blocks(self.data, self.name):
            self.seconds += len(block) / SAMPLE_RATE
            if self.seconds > self.longest_s:
                raise ValueError(
                    f"the recording is longer than {self.longest_s / 60:.0f} minutes; cut it"
                )
            yield block

    def transcript(self) -> Transcript:
        """Return what was heard."""
        return join(self.name, self.task, self.seconds, self.segments)


def add_routes(app: FastAPI, engine: Engine, settings: ServerConfig) -> None:
    """Add /v1/audio/transcriptions and /v1/audio/translations."""
    running = 0

    async def answer(
        request: Request, file: UploadFile, task: Task, form: Format, stream: bool
    ) -> Response:
        nonlocal running
        task.instruction()  # an unknown language is refused before anything is decoded
        if running >= settings.max_transcriptions:
            raise BusyError(f"{running} recordings are transcribed already; ask again later", 5.0)
        recording = _Recording(
            await file.read(), file.filename or "", task, settings.max_recording_s
        )
        segments = segments_of(engine, recording.blocks(), task)

        async def heard() -> AsyncIterator[Segment]:
            nonlocal running
            running += 1
            try:
                while (segment := await run_sync(next, segments, None)) is not None:
                    recording.segments.append(segment)
                    yield segment
            finally:
                running -= 1
                segments.close()

        if stream:
            return StreamingResponse(_events(recording, heard()), media_type="text/event-stream")

        async def whole() -> None:
            async for _ in heard():
                pass

        await while_connected(request, whole())
        return _body(recording, form)

    @app.post("/v1/audio/transcriptions", responses=ANSWERS | ERRORS, response_model=None)
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File(description="A sound file of any usual kind")],
        model: Annotated[str, Form()] = "",
        language: Annotated[str, Form(description="What is spoken, such as en")] = "en",
        prompt: Annotated[str, Form(max_length=2000, description="Names that may occur")] = "",
        response_format: Annotated[Format, Form()] = "json",
        temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        """Write down what is said in a recording."""
        task = Task(language, names=_names(prompt), temperature=temperature)
        return await answer(request, file, task, response_format, stream)

    @app.post("/v1/audio/translations", responses=ANSWERS | ERRORS, response_model=None)
    async def translations(
        request: Request,
        file: Annotated[UploadFile, File(description="A sound file of any usual kind")],
        model: Annotated[str, Form()] = "",
        language: Annotated[str, Form(description="What is spoken; ours")] = "de",
        target: Annotated[str, Form(description="What to translate to; ours")] = "en",
        prompt: Annotated[str, Form(max_length=2000, description="Names that may occur")] = "",
        response_format: Annotated[Format, Form()] = "json",
        temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,
    ) -> Response:
        """Translate what is said in a recording, to English unless asked otherwise."""
        task = Task(language, target, _names(prompt), temperature)
        return await answer(request, file, task, response_format, stream=False)


async def _events(recording: _Recording, heard: AsyncIterator[Segment]) -> AsyncIterator[str]:
    """Yield OpenAI's events of a transcript that grows."""
    try:
        space = ""
        async for segment in heard:
            delta = space + segment.text
            yield event_line({"type": "transcript.text.delta", "delta": delta})
            space = " "
        text = recording.transcript().text
        yield event_line({"type": "transcript.text.done", "text": text})
    except ValueError as problem:  # the recording is not what it said it was
        yield event_line({"error": {"message": str(problem), "type": "invalid_request_error"}})
    except (TimeoutError, RuntimeError) as problem:
        yield last_words(problem)


def _names(prompt: str) -> tuple[str, ...]:
    """Return the names and terms of a prompt, which commas part."""
    return tuple(name.strip() for name in prompt.split(",") if name.strip())


def _body(recording: _Recording, form: Format) -> Response:
    transcript = recording.transcript()
    match form:
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt":
            return PlainTextResponse(to_srt(transcript))
        case "vtt":
            return PlainTextResponse(to_vtt(transcript), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(_verbose(transcript, recording.task))
    return JSONResponse({"text": transcript.text})


def _verbose(transcript: Transcript, task: Task) -> dict[str, Any]:
    segments = [
        {
            "id": n,
            "seek": round(segment.start * 100),  # OpenAI counts frames of 10 ms
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": [],
            "temperature": task.temperature,
            "avg_logprob": segment.logprob,
            "compression_ratio": segment.compression,
            "no_speech_prob": 1 - segment.speech,
        }
        for n, segment in enumerate(transcript.segments)
    ]
    return {
        "task": "transcribe" if task.target is None else "translate",
        "language": LANGUAGES[transcript.language].lower(),
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": segments,
    }
