"""ASR and AST conversations from text alone: sentences spoken by voices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.seeding import seeded
from voicetextblender.synth.plan import run
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, Speech, shard_name
from voicetextblender.synth.speakers import Speakers, draw_warp
from voicetextblender.text import (
    Wording,
    draw_wording,
    transcribe_instruction,
    translate_instruction,
)

PER_GROUP = 16
"""Clips that are held at once: they are recognised together, and babble behind one another."""

_CHARS_PER_S = 10.0  # hibari says 11.4, pauses included; this makes few clips too long
_LONGEST_S = 30.0  # what Whisper hears at once


@dataclass(frozen=True, slots=True)
class SpokenSentences:
    """How clips are made from sentences; the same value makes the same clips."""

    sentences: tuple[str, ...]
    speakers: Speakers = Speakers()
    """One of their voices, drawn from the seed, speaks a clip."""
    translations: tuple[str, ...] | None = None
    """Of each sentence, in `target`: then translation is asked for, and not a transcript."""
    target: str | None = None
    wording: Literal["paper", "varied"] = "paper"
    """How it is asked for; see `text`."""
    longest_run: int = 1
    """A clip says 1 to this many sentences, one behind the other with a pause between."""
    longest_s: float | None = None
    """Instead of `longest_run`: clips of 1 to this many seconds, at most 30."""
    clips: int | None = None
    """So many of them only, in random order."""
    about: tuple[tuple[str, str], ...] = ()
    """What every conversation's `meta` is to say of the text, such as its source and license."""
    per_shard: int = PER_SHARD
    seed: int = 0

    def __post_init__(self) -> None:
        if self.translations and len(self.translations) != len(self.sentences):
            raise ValueError(
                f"{len(self.sentences)} sentences have {len(self.translations)} translations; each "
                f"needs one"
            )
        if self.longest_run < 1:
            raise ValueError(f"longest_run is {self.longest_run}; it must be 1 or more")
        if self.longest_s is not None and not 1 <= self.longest_s <= _LONGEST_S:
            raise ValueError(f"longest_s is {self.longest_s}; it must be 1 to {_LONGEST_S:.0f}")

    def runs(self) -> list[range]:
        """Divide the sentences into runs, one for each clip."""
        random = seeded(self.seed, "runs")
        runs: list[range] = []
        while not runs or runs[-1].stop < len(self.sentences):
            first = runs[-1].stop if runs else 0
            if self.longest_s is None:
                wanted = int(random.integers(1, self.longest_run + 1))
            else:
                wanted = self._fitting(first, float(random.uniform(1, self.longest_s)))
            runs.append(range(first, min(first + wanted, len(self.sentences))))
        if self.clips is None:
            return runs
        return [runs[n] for n in random.permutation(len(runs))[: self.clips]]

    def _fitting(self, first: int, seconds: float) -> int:
        """Return how many sentences, at least one, are likely said in so many seconds."""
        last = first
        while last < len(self.sentences):
            seconds -= (len(self.sentences[last]) + 1) / _CHARS_PER_S
            if seconds < 0:
                break
            last += 1
        return max(1, last - first)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A clip before its words are checked."""

    voice: str
    text: str
    samples: np.ndarray
    """(S,) float32 at SAMPLE_RATE."""
    warp: float


class Speaking:
    """The plan to speak some sentences."""

    def __init__(self, spoken: SpokenSentences) -> None:
        self.spoken = spoken
        self.runs = spoken.runs()

    def __repr__(self) -> str:
        return repr(self.spoken)

    @property
    def num_items(self) -> int:
        return len(self.runs)

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some clips."""
        for first in range(0, len(items), PER_GROUP):
            group = items[first : first + PER_GROUP]
            drafts: dict[int, _Draft] = {}
            dropped: dict[int, Dropped] = {}
            for attempt in range(2):  # what fails once may do with another speed or another voice
                todo = [item for item in group if item not in drafts]
                drafts |= self._attempt(todo, attempt, dropped)
            for item in group:
                yield self._finish(item, drafts) if item in drafts else dropped[item]

    def _attempt(
        self, items: Sequence[int], attempt: int, dropped: dict[int, Dropped]
    ) -> dict[int, _Draft]:
        """Return the drafts that are good, and put down in `dropped` why the others are not."""
        spoken = self.spoken
        drafts: dict[int, _Draft] = {}
        for item in items:
            name = spoken.speakers.draw_voice(seeded(spoken.seed, "voice", item, attempt))
            try:
                drafts[item] = self._speak(item, attempt, name)
            except ValueError as error:
                dropped[item] = Dropped(item, name, "not able to say it", str(error))
                continue
            seconds = len(drafts[item].samples) / SAMPLE_RATE
            longest_s = spoken.longest_s or (_LONGEST_S if spoken.speakers.check else None)
            if longest_s and seconds > longest_s:
                why = f"{seconds:.1f} s, and {longest_s:.0f} s are allowed"
                dropped[item] = Dropped(item, name, "too slow for the longest clip", why)
                del drafts[item]
        clips, texts = [d.samples for d in drafts.values()], [d.text for d in drafts.values()]
        wrong = spoken.speakers.misheard(clips, texts)
        for (item, draft), why in zip(list(drafts.items()), wrong, strict=True):
            if why:
                dropped[item] = Dropped(item, draft.voice, "heard otherwise", why)
                del drafts[item]
        return drafts

    def _speak(self, item: int, attempt: int, name: str) -> _Draft:
        spoken = self.spoken
        random = seeded(spoken.seed, "clip", item, *((attempt,) if attempt else ()))
        sentences = [spoken.sentences[number] for number in self.runs[item]]
        warp = draw_warp(spoken.speakers.warp, random)
        before = np.zeros(int(random.uniform(0.0, 0.4) * SAMPLE_RATE), dtype=np.float32)
        samples = np.concatenate([before, spoken.speakers.say(name, sentences, random, warp)])
        return _Draft(name, " ".join(sentences), samples, warp)

    def _finish(self, item: int, drafts: dict[int, _Draft]) -> Made:
        spoken, draft = self.spoken, drafts[item]
        meta: dict[str, object] = {"voice": draft.voice, "synthetic": True}
        if spoken.speakers.warp:
            meta["warp"] = round(draft.warp, 3)
        meta |= dict(spoken.about)
        others = [other.samples for n, other in drafts.items() if n != item]
        random = seeded(spoken.seed, "conditions", item)
        samples, conditions = spoken.speakers.put_in_conditions(draft.samples, random, others)
        if conditions:
            meta["conditions"] = conditions
        name = f"{item:06d}.flac"
        clip = Audio(
            f"{shard_name(item // spoken.per_shard)}.tar#{name}",
            duration=round(len(samples) / SAMPLE_RATE, 3),
            text=draft.text,
        )
        wording, lang = self._wording(item), spoken.speakers.lang
        answer = draft.text
        if spoken.translations:
            answer = " ".join(spoken.translations[number] for number in self.runs[item])
            meta["target_lang"] = spoken.target
        conversation = Conversation(
            id=f"{draft.voice}-{lang}-{item:06d}",
            messages=(user(wording.instruction, clip), assistant(wording.answer(answer))),
            task="ast" if spoken.translations else "asr",
            lang=lang,
            meta=meta,
        )
        return Made(conversation, (Speech(name, samples, SAMPLE_RATE),))

    def _wording(self, item: int) -> Wording:
        lang, target = self.spoken.speakers.lang, self.spoken.target
        if self.spoken.wording == "varied":
            return draw_wording(seeded(self.spoken.seed, "wording", item), lang, target)
        is_ast = target is not None
        return Wording(
            translate_instruction(lang, target) if is_ast else transcribe_instruction(lang)
        )


def speak(
    spoken: SpokenSentences, out: Path, workers: int = 1, max_drop: float = 0.1
) -> Iterator[tuple[int, int]]:
    """Write the clips and their conversations under `out`; see `plan.run`."""
    return run(Speaking(spoken), out, workers, max_drop, spoken.per_shard)
