"""The engine: one loaded model, one thread that works, any number that ask.

Requests wait in a bounded queue, join the growing answers between two steps, and leave when they
end, run out of time or are given up. Whoever asks gets an iterator of chunks.
"""

import ctypes
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue

import numpy as np

from voicetextblender.batch import Sample
from voicetextblender.chat import Conversation
from voicetextblender.model.cache import PrefixCache
from voicetextblender.model.constrain import check_schema
from voicetextblender.model.decode import build_decoder, merge_encoder
from voicetextblender.model.generate import Chunk, Decoding, Generation
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.serve.config import EngineConfig

TRIM_EVERY = 32
"""Answers after which freed memory is given back."""


class BusyError(RuntimeError):
    """The engine has too much to do; ask again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is being served."""

    name: str
    llm: str
    encoder: str
    context: int
    """Tokens that a conversation and its answer may have together."""
    seconds_per_embedding: float
    """Length of the sound behind one audio position."""
    parameters: int
    precision: str


@dataclass(slots=True)
class Stats:
    """What the engine has done; only its thread writes."""

    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    late: int = 0
    """Requests that ran out of time."""
    prompt_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens found in the prefix cache."""
    new_tokens: int = 0
    steps: int = 0
    audio_s: float = 0.0
    first_token_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    """Seconds from asking to the first token, of the last requests."""


Event = Chunk | Exception


class Request:
    """A question under way; iterate over it for the chunks of the answer."""

    def __init__(
        self,
        number: int,
        sample: Sample,
        decoding: Decoding,
        voice: bool,
        deadline: float,
        deliver: Callable[[Event], None] | None,
    ) -> None:
        self.number = number
        self.sample = sample
        self.decoding = decoding
        self.voice = voice
        self.deadline = deadline
        self.asked = time.monotonic()
        self.num_tokens = 0
        """Tokens of the answer so far."""
        self.is_cancelled = False
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.deliver = deliver or self._events.put

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the question, audio positions included."""
        return len(self.sample)

    def cancel(self) -> None:
        """Give the answer up; what it holds is free before the next step. Safe to call again."""
        self.is_cancelled = True

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until the last, which is `finished`.

        Raises TimeoutError when the deadline passes and RuntimeError if the engine fails or closes;
        an iteration that is left early cancels the request.
        """
        try:
            while True:
                event = self._events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if event.finished:
                    return
        finally:
            self.cancel()

    def text(self) -> str:
        """Return the whole answer."""
        return "".join(chunk.text for chunk in self)


class Engine:
    """Answers many conversations at once with one model."""

    def __init__(
        self,
        model: SpeechLM,
        processor: SpeechLMProcessor,
        settings: EngineConfig = EngineConfig(),
        name: str = "voicetextblender",
    ) -> None:
        """Lay out the weights and start the thread; from then on `model` is for use alone."""
        merge_encoder(model)
        self.model = model
        self.processor = processor
        self.settings = settings
        self.info = _info(model, processor, settings, name)
        self.stats = Stats()
        self.started = int(time.time())
        """When it was ready, in seconds since 1970."""
        self._numbers = count()
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._wake = threading.Condition()
        self._is_closing = False
        self._encoding = threading.Lock()
        self._generations = {True: self._generation(voice=True)}
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        conversation: Conversation,
        clips: Sequence[np.ndarray] = (),
        decoding: Decoding = Decoding(),
        *,
        voice: bool = True,
        deadline_s: float | None = None,
        deliver: Callable[[Event], None] | None = None,
    ) -> Request:
        """Ask for the answer to a conversation with its clips' samples, float32 at 16 kHz.

        Without `voice` the LLM answers as it was before it learned to hear. Events go to `deliver`,
        called from the engine's thread, where it is given. Raises ValueError for what cannot be
        answered, BusyError when too many wait.
        """
        if decoding.schema is not None:
            check_schema(decoding.schema)
        with self._encoding:  # tokenizers are not made for several threads
            sample = self.processor.encode(conversation, clips, purpose="answer")
        longest = self.info.context - decoding.max_new_tokens
        if len(sample) > longest:
            raise ValueError(
                f"the conversation has {len(sample)} tokens and the answer may have "
                f"{decoding.max_new_tokens}, more than the model's {self.info.context} together; "
                f"shorten it, or ask for fewer tokens"
            )
        deadline = time.monotonic() + (deadline_s or self.settings.deadline_s)
        request = Request(next(self._numbers), sample, decoding, voice, deadline, deliver)
        with self._wake:
            if self._is_closing:
                raise BusyError("the server is closing; ask another", 5.0)
            if len(self._waiting) >= self.settings.max_waiting:
                self.stats.refused += 1
                raise BusyError(
                    f"{len(self._waiting)} requests wait already; ask again later",
                    self._seconds_to_wait(),
                )
            self._waiting.append(request)
            self._wake.notify()
        return request

    @property
    def num_waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Answers that grow."""
        return len(self._running)

    @property
    def is_well(self) -> bool:
        """Whether the thread works and takes requests."""
        return self._thread.is_alive() and not self._is_closing

    def close(self, patience_s: float = 30.0) -> None:
        """Take no more requests, finish those there are, and stop; cancel what takes longer."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            with self._wake:
                for request in [*self._waiting, *self._running.values()]:
                    request.cancel()
            self._thread.join(5.0)

    def _work(self) -> None:
        """Admit, step, deliver, until closed and done."""
        while True:
            with self._wake:
                while not (self._waiting or self._running or self._is_closing):
                    self._wake.wait()
                if self._is_closing and not (self._waiting or self._running):
                    return
            try:
                with self._wake:
                    self._leave()
                    joining = self._admit()
                self._read(joining)
                for generation in self._generations.values():
                    if generation.answers:
                        self._step(generation)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._fail(error)

    def _leave(self) -> None:
        """Let go of requests that were given up or are late."""
        now = time.monotonic()
        for request in [*self._waiting, *self._running.values()]:
            if not request.is_cancelled and now < request.deadline:
                continue
            if request.number in self._running:
                self._generations[request.voice].leave(request.number)
                del self._running[request.number]
            else:
                self._waiting.remove(request)
            if request.is_cancelled:
                self.stats.cancelled += 1
                request.deliver(RuntimeError("the request was cancelled"))
            else:
                self.stats.late += 1
                seconds = request.deadline - request.asked
                request.deliver(TimeoutError(f"there was no answer within {seconds:.0f} s"))

    def _admit(self) -> list[Request]:
        """Take from the queue what there is room for: a few prompts between two steps."""
        joining: list[Request] = []
        tokens = 0
        while self._waiting and len(self._running) < self.settings.max_running:
            tokens += len(self._waiting[0].sample)
            if joining and tokens > self.settings.max_read_tokens:
                break
            request = self._waiting.popleft()
            self._running[request.number] = request
            joining.append(request)
        return joining

    def _read(self, joining: Sequence[Request]) -> None:
        for voice in {request.voice for request in joining}:
            if voice not in self._generations:
                self._generations[voice] = self._generation(voice=voice)
            own = [request for request in joining if request.voice is voice]
            self.stats.reused_tokens += self._generations[voice].join_all(
                [(request.number, request.sample, request.decoding, 0) for request in own]
            )
            self.stats.prompt_tokens += sum(len(request.sample) for request in own)

    def _step(self, generation: Generation) -> None:
        """Grow every answer by a token and hand out what is new."""
        self.stats.steps += 1
        for chunk in generation.step():
            request = self._running[chunk.row]
            request.num_tokens += 1
            self.stats.new_tokens += 1
            if request.num_tokens == 1:
                self.stats.first_token_s.append(time.monotonic() - request.asked)
            if chunk.finished:
                del self._running[chunk.row]
                self.stats.finished += 1
                if self.stats.finished % TRIM_EVERY == 0:
                    _trim()
            if chunk.text or chunk.finished or chunk.token:
                request.deliver(chunk)

    def _fail(self, error: Exception) -> None:
        """Tell everybody who is being answered, and begin afresh."""
        failed = list(self._running.values())
        self._running.clear()
        for generation in self._generations.values():
            generation.clear()
        self.stats.failed += len(failed)
        for request in failed:
            request.deliver(RuntimeError(f"the engine failed: {error}"))

    def _generation(self, *, voice: bool) -> Generation:
        decoder = build_decoder(self.model, self.settings.precision, voice=voice)
        prefixes = PrefixCache(self.settings.prefix_tokens)
        return Generation(self.model, self.processor, decoder, prefixes)

    def _seconds_to_wait(self) -> float:
        """Guess when the queue will have moved: what a request has taken so far."""
        recent = list(self.stats.first_token_s)[-20:]
        return max(1.0, float(np.mean(recent)) if recent else 1.0)


def _trim() -> None:
    """Give freed memory back where the C library is glibc, which keeps it, in pieces, by itself."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _info(
    model: SpeechLM, processor: SpeechLMProcessor, settings: EngineConfig, name: str
) -> ModelInfo:
    parts = model.config.model
    dtype = str(model.table.dtype).removeprefix("torch.")
    return ModelInfo(
        name=name,
        llm=parts.llm,
        encoder=parts.encoder,
        context=min(settings.context, model.config.text_config.max_position_embeddings),
        seconds_per_embedding=processor.features_per_embedding / 100,
        parameters=sum(p.numel() for p in model.parameters()),
        precision=settings.precision if settings.precision != "model" else dtype,
    )
