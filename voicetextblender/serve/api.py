"""What goes over the wire: OpenAI's requests and answers, and how they become ours.

Fields that OpenAI's clients send and that change nothing here are accepted and ignored; fields that
would change the answer and are not known here are refused.
"""

import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from voicetextblender.audio import SAMPLE_RATE, load_bytes
from voicetextblender.chat import Audio, Conversation, Part, Text, Turn
from voicetextblender.model.generate import Chunk, Decoding, Token

FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "aac", "mp4")
ANY_JSON = '{"type": "object"}'

Fetch = Callable[[str], bytes]
"""Returns what lies at an address. Raises ValueError."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class TextPart(_Wire):
    """Words."""

    type: Literal["text"]
    text: str


class InputAudio(_Wire):
    """A sound file in base64."""

    data: str
    format: str = "wav"


class InputAudioPart(_Wire):
    """A recording in the request."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(_Wire):
    """Where a sound file is: a data URL, or http(s) if the server allows it."""

    url: str


class AudioUrlPart(_Wire):
    """A recording elsewhere."""

    type: Literal["audio_url"]
    audio_url: AudioUrl


ContentPart = Annotated[TextPart | InputAudioPart | AudioUrlPart, Field(discriminator="type")]


class Message(_Wire):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class StreamOptions(_Wire):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class JsonSchema(_Wire):
    """A JSON schema with OpenAI's wrapping."""

    name: str = ""
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(_Wire):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(_Wire):
    """The body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=0, lt=2**40)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    voice: bool = True
    """Ours: false answers with the language model as it was before it learned to hear."""

    def decoding(self, longest: int) -> Decoding:
        """Return how the answer is chosen; `longest` is its length if none is asked for."""
        stop = self.stop if isinstance(self.stop, list) else [self.stop] if self.stop else []
        return Decoding(
            max_new_tokens=self.max_completion_tokens or self.max_tokens or longest,
            temperature=0.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed if self.seed is not None else int.from_bytes(uuid.uuid4().bytes[:4]),
            stop=tuple(stop),
            num_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            schema=self._schema(),
        )

    def _schema(self) -> str | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return ANY_JSON
        if wanted.json_schema is None:
            raise ValueError("response_format of type json_schema needs 'json_schema'; add it")
        return json.dumps(wanted.json_schema.schema_)


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation with the samples of its clips."""

    conversation: Conversation
    clips: list[np.ndarray]


def read_messages(request: ChatRequest, max_audio_s: float, fetch: Fetch) -> Question:
    """Decode every clip and return the conversation. Raises ValueError for what cannot be heard."""
    clips: list[np.ndarray] = []
    turns = []
    left_s = max_audio_s
    for n, message in enumerate(request.messages):
        parts: list[Part] = []
        content = message.content
        for part in [TextPart(type="text", text=content)] if isinstance(content, str) else content:
            if isinstance(part, TextPart):
                parts.append(Text(part.text))
                continue
            where = f"message {n}, clip {len(clips)}"
            if message.role != "user":
                raise ValueError(f"{where}: only user messages hold audio; put it in one")
            clips.append(decode_clip(*_bytes_of(part, where, fetch), where, left_s))
            left_s -= len(clips[-1]) / SAMPLE_RATE
            parts.append(Audio(where))
        role = "system" if message.role == "developer" else message.role
        turns.append(Turn(role, tuple(parts)))
    return Question(Conversation("request", tuple(turns)), clips)


def decode_clip(data: bytes, suffix: str, where: str, max_s: float) -> np.ndarray:
    """Decode a sound file that must not be longer than `max_s`. Raises ValueError.

    No more than that is decoded, however much a small file unpacks to.
    """
    samples = load_bytes(data, f"{where}.{suffix}", duration=max(0.0, max_s) + 1)
    if len(samples) > max_s * SAMPLE_RATE:
        raise ValueError(
            f"{where}: is longer than the {max_s:.0f} s that a request may still hold; "
            f"cut it, or send a long recording to /v1/audio/transcriptions"
        )
    return samples


def _bytes_of(part: InputAudioPart | AudioUrlPart, where: str, fetch: Fetch) -> tuple[bytes, str]:
    """Return a clip's file and its format."""
    if isinstance(part, InputAudioPart):
        form = part.input_audio.format.lower()
        if form not in FORMATS:
            raise ValueError(f"{where}: format {form[:20]!r} is not one of {', '.join(FORMATS)}")
        return _from_base64(part.input_audio.data, where), form
    url = part.audio_url.url
    if url.startswith("data:"):
        head, comma, data = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError(f"{where}: a data URL must be 'data:audio/…;base64,…'")
        kind = re.match(r"data:audio/(?:x-)?(\w{1,8})", head)
        return _from_base64(data, where), kind[1] if kind else "wav"
    return fetch(url), "audio"


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where}: is not base64; encode the bytes of the sound file") from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What all messages of one answer share."""

    id: str
    created: int
    model: str

    def whole(self, chunks: list[Chunk], prompt_tokens: int, num_tokens: int) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        text = "".join(chunk.text for chunk in chunks)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "finish_reason": chunks[-1].finished,
            "logprobs": _logprobs(chunks),
        }
        usage = to_usage(prompt_tokens, num_tokens)
        return self._body("chat.completion", [choice]) | {"usage": usage}

    def piece(self, chunk: Chunk | None) -> dict[str, Any]:
        """Return one event of a streamed answer; None opens it."""
        delta = {"role": "assistant", "content": ""} if chunk is None else {"content": chunk.text}
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": chunk.finished if chunk else None,
            "logprobs": _logprobs([chunk] if chunk else []),
        }
        return self._body("chat.completion.chunk", [choice])

    def usage(self, prompt_tokens: int, num_tokens: int) -> dict[str, Any]:
        """Return the last event of a stream that asks for usage."""
        usage = to_usage(prompt_tokens, num_tokens)
        return self._body("chat.completion.chunk", []) | {"usage": usage}

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def new_reply(model: str) -> Reply:
    """Return the frame of an answer."""
    return Reply(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model)


def to_usage(prompt_tokens: int, num_tokens: int) -> dict[str, int]:
    """Return OpenAI's count of tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": prompt_tokens + num_tokens,
    }


def _logprobs(chunks: Iterable[Chunk]) -> dict[str, Any] | None:
    tokens = [chunk.token for chunk in chunks if chunk.token]
    return {"content": [_logprob(token) for token in tokens], "refusal": None} if tokens else None


def _logprob(token: Token) -> dict[str, Any]:
    def entry(text: str, logprob: float) -> dict[str, Any]:
        # JSON has no infinity: what cannot come is as unlikely as a float32 can say.
        logprob = max(logprob, -9999.0)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    likeliest = [entry(*other) for other in token.likeliest]
    return entry(token.text, token.logprob) | {"top_logprobs": likeliest}
