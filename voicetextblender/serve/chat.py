"""A conversation in the terminal: type, speak, or add recordings."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.chat import Audio, Conversation, Part, Text, Turn, assistant
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.captions import Captions, Submit, captioning, conversing
from voicetextblender.serve.engine import Engine

HELP = (
    "type a message; /audio FILE adds a recording to it, /record your voice; "
    "/new begins again; /quit ends"
)


@dataclass(slots=True)
class Chat:
    """A conversation that grows turn by turn."""

    engine: Engine
    decoding: Decoding = Decoding()
    turns: list[Turn] = field(default_factory=list)
    clips: list[np.ndarray] = field(default_factory=list)
    """Samples of every recording so far, those that wait included."""
    pending: list[Part] = field(default_factory=list)
    """Recordings that wait for the message that they go with."""
    captions: Captions | None = field(init=False)
    submit: Submit = field(init=False)

    def __post_init__(self) -> None:
        """Ask the engine as its settings say."""
        self.captions = captioning(self.engine)
        self.submit = conversing(self.engine, self.captions)

    def add_audio(self, path: str) -> float:
        """Add a recording to the next message and return its seconds. Raises ValueError."""
        return self.add_clip(load(path), path)

    def add_clip(self, samples: np.ndarray, name: str) -> float:
        """Add (S,) samples at 16 kHz to the next message and return their seconds."""
        self.pending.append(Audio(name))
        self.clips.append(samples)
        return len(samples) / SAMPLE_RATE

    def heard(self) -> str | None:
        """Return what the newest recording is captioned with; None without captions."""
        return self.captions.of(self.clips[-1]) if self.captions else None

    def say(self, text: str) -> Iterator[str]:
        """Send the message with its recordings and yield the answer as it grows."""
        turn = Turn("user", (*([Text(text)] if text else []), *self.pending))
        conversation = Conversation("chat", (*self.turns, turn))
        answer = ""
        for chunk in self.submit(conversation, self.clips, self.decoding):
            answer += chunk.text
            yield chunk.text
        self.turns += [turn, assistant(answer)]
        self.pending = []

    def new(self) -> None:
        """Forget everything that was said."""
        self.turns, self.pending, self.clips = [], [], []
