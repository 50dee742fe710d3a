"""ASR conversations from text alone: sentences spoken by a voice."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.seeding import seeded
from voicetextblender.synth.shards import Speech, make_shards, shard_name
from voicetextblender.synth.voices import VoiceName, load_voice
from voicetextblender.text import transcribe_instruction

PER_SHARD = 100


@dataclass(frozen=True, slots=True)
class SpokenSentences:
    """How clips are made from sentences; the same value makes the same clips."""

    sentences: tuple[str, ...]
    voice: VoiceName = "hibari"
    lang: str = "en"
    longest_run: int = 1
    """A clip says 1 to this many sentences, one behind the other with a pause between."""
    seed: int = 0

    def runs(self) -> list[range]:
        """Divide the sentences into runs, one for each clip."""
        random = seeded(self.seed, "runs")
        runs: list[range] = []
        while not runs or runs[-1].stop < len(self.sentences):
            first = runs[-1].stop if runs else 0
            wanted = int(random.integers(1, self.longest_run + 1))
            runs.append(range(first, min(first + wanted, len(self.sentences))))
        return runs


@dataclass(frozen=True, slots=True)
class _Make:
    """Makes the clip of one run; picklable, so that worker processes can have it."""

    spoken: SpokenSentences
    runs: list[range]

    def __call__(self, item: int) -> tuple[Conversation, list[Speech]]:
        spoken = self.spoken
        voice = load_voice(spoken.voice)
        random = seeded(spoken.seed, "clip", item)
        speed = float(random.uniform(0.85, 1.2))
        pieces: list[np.ndarray] = []
        for number in self.runs[item]:
            pause_s = float(random.uniform(0.1, 0.4))
            pieces += [
                voice.speak(spoken.sentences[number], int(random.integers(2**31)), speed),
                np.zeros(int(pause_s * voice.rate), dtype=np.float32),
            ]
        samples = np.concatenate(pieces)
        text = " ".join(spoken.sentences[number] for number in self.runs[item])
        name = f"{item:06d}.flac"
        clip = Audio(
            f"{shard_name(item // PER_SHARD)}.tar#{name}",
            duration=round(len(samples) / voice.rate, 3),
            text=text,
        )
        conversation = Conversation(
            id=f"{spoken.voice}-{spoken.lang}-{item:06d}",
            messages=(user(transcribe_instruction(spoken.lang), clip), assistant(text)),
            task="asr",
            lang=spoken.lang,
            meta={"voice": spoken.voice, "synthetic": True},
        )
        return conversation, [Speech(name, samples, voice.rate)]


def speak(spoken: SpokenSentences, out: Path, workers: int = 1) -> Iterator[tuple[int, int]]:
    """Write the clips and their conversations under `out`, yielding (items done, items in all).

    Read them back as `out/*.jsonl`. A run that was stopped goes on where it was.
    """
    runs = spoken.runs()
    yield from make_shards(out, len(runs), PER_SHARD, _Make(spoken, runs), workers)


def read_sentences(path: Path) -> tuple[str, ...]:
    """Read a text file, one sentence a line, plain or gzipped. Raises ValueError if it is empty."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    sentences = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not sentences:
        raise ValueError(f"{path}: no sentences in it; write one on each line")
    return sentences
