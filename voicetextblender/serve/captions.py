"""Captions: a model writes down what it hears, and reads it beside the clip when it answers.

CTC helps with transcripts alone, so that a model may write down what it does not understand yet;
its own words behind the clip then help with everything else. SpeechGPT (Zhang et al. 2023,
arXiv 2305.11000) calls that a chain of modality.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from voicetextblender.chat import Conversation
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.engine import Engine, Request
from voicetextblender.serve.transcribe import Task, segments_of
from voicetextblender.text import LANGUAGES

KEPT = 256
"""Captions that are remembered, so that a conversation's earlier clips are not heard again."""

Submit = Callable[..., Request]
"""Asks for an answer, as `Engine.submit` does."""


def conversing(engine: Engine) -> Submit:
    """Return what conversations are asked with: captioned first, if engine or model say so."""
    wanted = engine.settings.captions
    if wanted is None:
        wanted = engine.model.config.model.captions
    return _Captioner(engine).submit if wanted else engine.submit


class _Captioner:
    """Writes captions before it asks; waits for them, so it is not for an event loop's thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[bytes, str] = {}
        self.lock = threading.Lock()

    def submit(
        self,
        conversation: Conversation,
        clips: Sequence[np.ndarray] = (),
        decoding: Decoding = Decoding(),
        *,
        voice: bool = True,
        **how: Any,
    ) -> Request:
        """Ask as `Engine.submit` does, with the model's own transcript behind each clip."""
        if voice and clips:
            lang = conversation.lang if conversation.lang in LANGUAGES else "en"
            conversation = conversation.captioned([self._caption(clip, lang) for clip in clips])
        return self.engine.submit(conversation, clips, decoding, voice=voice, **how)

    def _caption(self, clip: np.ndarray, lang: str) -> str:
        name = hashlib.blake2b(clip.tobytes(), key=lang.encode()).digest()
        with self.lock:
            text = self.known.pop(name, None)
        if text is None:
            text = " ".join(s.text for s in segments_of(self.engine, [clip], Task(lang)))
        with self.lock:
            self.known[name] = text  # the last used is the last to be forgotten
            if len(self.known) > KEPT:
                del self.known[next(iter(self.known))]
        return text
