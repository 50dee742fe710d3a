"""A conversation in the terminal: type, or add recordings with `/audio FILE`."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, Part, Text, Turn, assistant
from voicetextblender.data.records import load_clips
from voicetextblender.model.generate import Decoding, generate
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor

HELP = "type a message; /audio FILE adds a recording to it; /new begins again; /quit ends"


@dataclass(slots=True)
class Chat:
    """A conversation that grows turn by turn."""

    model: SpeechLM
    processor: SpeechLMProcessor
    decoding: Decoding = Decoding()
    turns: list[Turn] = field(default_factory=list)
    pending: list[Part] = field(default_factory=list)
    """Recordings that wait for the message that they go with."""

    def add_audio(self, path: str) -> float:
        """Add a recording to the next message and return its seconds. Raises ValueError."""
        samples = load(path)
        self.pending.append(Audio(path))
        return len(samples) / 16_000

    def say(self, text: str) -> Iterator[str]:
        """Send the message with its recordings and yield the answer as it grows."""
        parts = (*([Text(text)] if text else []), *self.pending)
        turn = Turn("user", parts)
        conversation = Conversation("chat", (*self.turns, turn))
        sample = self.processor.encode(conversation, load_clips(conversation), purpose="answer")
        answer = ""
        for chunk in generate(self.model, self.processor, [sample], self.decoding):
            answer += chunk.text
            yield chunk.text
        self.turns += [turn, assistant(answer)]
        self.pending = []

    def new(self) -> None:
        """Forget everything that was said."""
        self.turns, self.pending = [], []
