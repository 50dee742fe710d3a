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


def conversing(engine: Engine) -> Submit:
    """Return what conversations are asked with: captioned first, if engine or model say so.

    It waits for the captions, so it is not for an event loop's thread.
    """
    wanted = engine.settings.captions
    if wanted is None:
        wanted = engine.model.config.model.captions
    if not wanted:
        return engine.submit
    captions = _Captions(engine)

    def submit(
        conversation: Conversation,
        clips: Sequence[np.ndarray] = (),
        *how: Any,
        voice: bool = True,
        **more: Any,
    ) -> Request:
        if voice:
            lang = conversation.lang if conversation.lang in LANGUAGES else "en"
            conversation = conversation.captioned([captions.of(clip, lang) for clip in clips])
        return engine.submit(conversation, clips, *how, voice=voice, **more)

    return submit


class _Captions:
    """The transcripts of the last clips."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[bytes, str] = {}
        self.lock = threading.Lock()

    def of(self, clip: np.ndarray, lang: str) -> str:
        """Return what is said in (S,) samples, which is asked of the engine if it is new."""
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
