"""More of few recordings: joined to longer clips, as other speakers, under other conditions.

Real speech is scarce, and corpora of prompts or of games hold clips of two seconds. A model that
hears nothing else loses its way in a paragraph, so clips of one speaker are said one behind the
other; each joined clip is then another voice in another room.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import soxr

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.seeding import seeded
from voicetextblender.synth.augment import augment
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, Speech, shard_name
from voicetextblender.synth.speakers import draw_warp
from voicetextblender.text import Wording, draw_wording, transcribe_instruction


@dataclass(frozen=True, slots=True)
class Variations:
    """How recordings are varied; called with the numbers of items, it makes them."""

    clips: tuple[Conversation, ...]
    """With one clip each, whose words and length are known."""
    variants: int = 2
    """How often each recording is heard."""
    longest_s: float = 20.0
    """Joined clips last up to this many seconds, drawn anew for each."""
    warp: float = 0.0
    """Pitch, formants and pace are moved together by up to this share, up or down."""
    augment: float = 0.0
    """Strength of the speaking conditions, 0 (none) to 1; see `synth.augment`."""
    clean: float = 0.0
    """Share of the clips that are left without conditions."""
    wording: Literal["paper", "varied"] = "paper"
    seed: int = 0
    runs: tuple[tuple[int, ...], ...] = field(init=False, repr=False)
    """The recordings of each item, by number."""

    def __post_init__(self) -> None:
        for clip in (conversation.clips[0] for conversation in self.clips):
            if clip.duration is None:
                raise ValueError(f"{clip.audio}: its 'duration' is not given; add it, in seconds")
        if self.longest_s < 1:
            raise ValueError(f"longest_s is {self.longest_s}; it must be 1 or more")
        object.__setattr__(self, "runs", tuple(self._runs()))

    @property
    def num_items(self) -> int:
        return len(self.runs)

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        for item in items:
            try:
                yield self._make(item)
            except (ValueError, OSError) as error:
                kind = self._kind(item)
                yield Dropped(item, kind, "not able to be read", str(error))

    def _runs(self) -> Iterator[tuple[int, ...]]:
        """Divide each speaker's recordings, in random order, into runs; once for each variant."""
        by_speaker: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, conversation in enumerate(self.clips):
            speaker = str(conversation.meta.get("speaker", ""))
            by_speaker[conversation.lang or "en", speaker].append(number)
        random = seeded(self.seed, "runs")
        for _ in range(self.variants):
            for numbers in by_speaker.values():
                run: list[int] = []
                left_s = 0.0
                for number in random.permutation(numbers).tolist():
                    length_s = self.clips[number].clips[0].duration or 0.0
                    if run and length_s > left_s:
                        yield tuple(run)
                        run = []
                    if not run:
                        left_s = float(random.uniform(1, self.longest_s))
                    run.append(number)
                    left_s -= length_s
                yield tuple(run)

    def _make(self, item: int) -> Made:
        random = seeded(self.seed, "vary", item)
        sources = [self.clips[number] for number in self.runs[item]]
        warp = draw_warp(self.warp, random)
        pieces: list[np.ndarray] = []
        for source in sources:
            clip = source.clips[0]
            pause = np.zeros(int(random.uniform(0, 0.35) * SAMPLE_RATE), dtype=np.float32)
            pieces += [pause, load(clip.audio, clip.start, clip.duration)]
        samples = soxr.resample(np.concatenate(pieces), SAMPLE_RATE * warp, SAMPLE_RATE)
        meta = {**sources[0].meta, "kind": self._kind(item), "warp": round(warp, 3)}
        if self.augment and random.random() >= self.clean:
            samples, meta["conditions"] = augment(samples, SAMPLE_RATE, random, self.augment)
        name = f"{item:06d}.flac"
        text = " ".join((source.clips[0].text or "").strip() for source in sources)
        clip = Audio(
            f"{shard_name(item // PER_SHARD)}.tar#{name}",
            duration=round(len(samples) / SAMPLE_RATE, 3),
            text=text,
        )
        lang = sources[0].lang or "en"
        wording = Wording(transcribe_instruction(lang))
        if self.wording == "varied":
            wording = draw_wording(random, lang)
        turns = (user(wording.instruction, clip), assistant(wording.answer(text)))
        conversation = Conversation(f"varied-{lang}-{item:06d}", turns, "asr", lang, meta)
        return Made(conversation, (Speech(name, samples, SAMPLE_RATE),))

    def _kind(self, item: int) -> str:
        return self.clips[self.runs[item][0]].lang or "en"
