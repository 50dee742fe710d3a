"""How a model is served: every setting, declared once, with its default and one line about it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from voicetextblender.settings import Settings


class EngineConfig(Settings):
    """How a model answers many at once."""

    precision: Literal["model", "int8"] = "model"
    """Weights as the model has them, or in 8 bits with a scale for each output."""

    max_running: PositiveInt = 16
    """Answers that grow together."""

    max_waiting: PositiveInt = 64
    """Requests that may wait for their turn; more are refused."""

    max_read_tokens: PositiveInt = 1024
    """Prompt tokens read between two steps; more would hold up the answers that grow."""

    prefix_tokens: NonNegativeInt = 8192
    """Tokens of ended answers whose keys and values are kept for the conversation's next turn."""

    context: PositiveInt = 8192
    """Longest conversation with its answer, in tokens; the LLM's own limit if that is less."""

    deadline_s: PositiveFloat = 300.0
    """Seconds after which a request is given up."""

    captions: bool | None = None
    """Whether the model writes down each clip of a conversation and reads that when it answers;
    null does what the model's own setting says."""


class ServerConfig(Settings):
    """How a model is served over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines in."""

    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    """Port to listen at; 0 takes a free one."""

    api_keys: tuple[str, ...] = ()
    """Keys that clients must send; none lets everybody in who reaches the address."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask, such as https://example.org."""

    tls_cert: Path | None = None
    """PEM file of the certificate; with tls_key the server speaks https."""

    tls_key: Path | None = None
    """PEM file of the certificate's key."""

    max_request_mb: PositiveInt = 32
    """Largest request in MiB."""

    max_clip_s: PositiveFloat = 120.0
    """Seconds of sound that the clips of one conversation may hold together."""

    max_recording_s: PositiveFloat = 4 * 3600.0
    """Longest recording to transcribe, in seconds."""

    max_transcriptions: PositiveInt = 8
    """Recordings that are transcribed at a time."""

    requests_per_minute: NonNegativeInt = 0
    """Requests of one key, or of one address where there are no keys; 0 for any number."""

    allow_http_audio: bool = False
    """Whether audio_url may name http(s) addresses; they must be public."""

    grace_s: PositiveFloat = 30.0
    """Seconds that running requests have to end when the server is told to stop."""

    engine: EngineConfig = EngineConfig()
    """How the model answers many at once."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; give both or none")
        if any(len(key) < 8 for key in self.api_keys):
            raise ValueError(
                "an api key is shorter than 8 characters; make one that is not guessed"
            )
        return self
