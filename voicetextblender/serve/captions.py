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
from voicetextblender.serve.engine import Engine, Request
from voicetextblender.serve.transcribe import Task, segments_of
from voicetextblender.text import LANGUAGES

KEPT = 256
"""Captions that are remembered, so that a conversation's earlier clips are not heard again."""

Submit = Callable[..., Request]
"""Asks for an answer, as `Engine.submit` does."""


def captioning(engine: Engine) -> "Captions | None":
    """Return what captions clips; None if neither the engine's settings nor the model want that."""
    wanted = engine.settings.captions
    if wanted is None:
        wanted = engine.model.config.model.captions
    return Captions(engine) if wanted else None


def conversing(engine: Engine, captions: "Captions | None" = None) -> Submit:
    """Return what conversations are asked with: captioned first, if engine or model say so.

    It waits for the captions, so it is not for an event loop's thread. `captions` are those that
    somebody else looks at too.
    """
    if (captions := captions or captioning(engine)) is None:
        return engine.submit

    def submit(
        conversation: Conversation,
        clips: Sequence[np.ndarray] = (),
        *how: Any,
        voice: bool = True,
        **more: Any,
    ) -> Request:
        if voice:
            words = [captions.of(clip, conversation.lang) for clip in clips]
            conversation = conversation.captioned(words)
        return engine.submit(conversation, clips, *how, voice=voice, **more)

    return submit


class Captions:
    """The transcripts of the last clips."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[bytes, str] = {}
        self.lock = threading.Lock()

    def of(self, clip: np.ndarray, lang: str | None = None) -> str:
        """Return what is said in (S,) samples, which is asked of the engine if it is new.

        What is spoken is taken for English if `lang` is not known.
        """
        lang = lang if lang in LANGUAGES else "en"
        with self.lock:
            text = self.known.get(_name(clip, lang))
        if text is None:
            text = " ".join(s.text for s in segments_of(self.engine, [clip], Task(lang)))
        self.correct(clip, text, lang)
        return text

    def correct(self, clip: np.ndarray, text: str, lang: str = "en") -> None:
        """Remember what is said in (S,) samples; the last used is the last to be forgotten."""
        with self.lock:
            self.known.pop(name := _name(clip, lang), None)
            self.known[name] = text
            if len(self.known) > KEPT:
                del self.known[next(iter(self.known))]


def _name(clip: np.ndarray, lang: str) -> bytes:
    return hashlib.blake2b(clip.tobytes(), key=lang.encode()).digest()
