"""Mixed-modal conversations: parts of what a user typed are spoken, the rest stays text.

A turn is cut into sentences. Code, tables, links and formulas cannot be spoken, so they stay as
they are; of the rest a run of sentences, several runs, the whole turn, or several turns are spoken.
The typed twin of what is made is the conversation that it was made from.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Audio, Conversation, Part, Text, Turn
from voicetextblender.seeding import seeded
from voicetextblender.synth.augment import augment
from voicetextblender.synth.check import misheard
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, Speech, shard_name
from voicetextblender.synth.voices import check_language, load_voice, say

PER_GROUP = 20
FORMS = ("run", "spans", "turn", "turns")

_LONGEST_CHARS = 280  # of a clip: about 25 s
_LONGEST_S = 30.0  # what Whisper hears at once
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"\S[^\n]*?(?:[.!?…][\"'”’)]*(?=\s|\Z)|(?=\s*\n)|(?=\s*\Z))")
_NO_PROSE = re.compile(r"\t| {4}|\s*([-•]|\(?(\d+|[A-Za-z])[.)])\s")  # code, or a point of a list
_UNSPEAKABLE = re.compile(
    r"https?:|www\.|[^\W\d]\.\w{2,}\b|[`{}<>\\|=^~_#@*+\[\]]|\w\(|\d\s*[/÷×-]\s*\d|\.{3}"
)


@dataclass(frozen=True, slots=True)
class Mixed:
    """How spoken parts are made; called with the numbers of items, it makes them."""

    chats: tuple[Conversation, ...]
    """Without audio; those in which nothing can be spoken are left out."""
    voices: tuple[str, ...] = ("hibari",)
    """One drawn for each conversation, or, in a third of them, for each clip."""
    lang: str = "en"
    variants: int = 2
    """Made of each conversation, each with other parts spoken."""
    augment: float = 0.0
    """Strength of the speaking conditions, 0 (none) to 1; see `synth.augment`."""
    check: str | None = None
    """Recogniser that must hear the same words: `whisper-base` or a URL."""
    max_wer: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for voice in self.voices:
            check_language(voice, self.lang)
        fit = tuple(chat for chat in self.chats if _speakable_turns(chat))
        object.__setattr__(self, "chats", fit)
        if not fit:
            raise ValueError("no conversation has a sentence that can be spoken")

    @property
    def num_items(self) -> int:
        return len(self.chats) * self.variants

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        return in_groups(items, PER_GROUP, self._attempt)

    def _attempt(self, items: Sequence[int], attempt: int) -> Iterator[tuple[int, Made | Dropped]]:
        drafts: list[tuple[int, Made, list[np.ndarray]]] = []
        for item in items:
            random = seeded(self.seed, "mixed", item, attempt)
            by = self._draw_voice(random)
            try:
                drafts.append((item, *self._speak(item, by, random)))
            except ValueError as error:
                yield item, Dropped(item, by, "not able to say it", str(error))
        clips = [clip for _, _, clips in drafts for clip in clips]
        texts = [clip.text or "" for _, made, _ in drafts for clip in made.conversation.clips]
        told = [None] * len(clips)
        if self.check:
            told = misheard(clips, texts, self.check, self.lang, self.max_wer)
        for item, made, clips in drafts:
            wrong, told = told[: len(clips)], told[len(clips) :]
            why = next(filter(None, wrong), None)
            by = str(made.conversation.meta["voice"])
            yield item, Dropped(item, by, "heard otherwise", why) if why else made

    def _draw_voice(self, random: np.random.Generator) -> str:
        name = self.voices[int(random.integers(len(self.voices)))]
        load_voice(name)  # one that is not installed ends the run, and is no reason to drop
        return name

    def _speak(
        self, item: int, voice: str, random: np.random.Generator
    ) -> tuple[Made, list[np.ndarray]]:
        """Return the conversation, and its clips as a recogniser is to hear them."""
        chat = self.chats[item // self.variants]
        form, spans = draw_spans(chat, random)
        has_several_voices = random.random() < 1 / 3
        voices: list[str] = []
        clips: list[Speech] = []
        plain: list[np.ndarray] = []
        turns: list[Turn] = []
        for number, turn in enumerate(chat.messages):
            text, done, parts = turn.text, 0, list[Part]()
            for start, stop in spans.get(number, ()):
                name = self._draw_voice(random) if voices and has_several_voices else voice
                said = " ".join(text[start:stop].split())
                spoken, heard = self._clip(f"{item:06d}-{len(clips)}.flac", name, said, random)
                duration = len(spoken.samples) / spoken.rate
                audio = f"{shard_name(item // PER_SHARD)}.tar#{spoken.name}"
                parts += [Text(text[done:start])] if text[done:start] else []
                parts.append(Audio(audio, duration=round(duration, 3), text=said))
                voices.append(name)
                clips.append(spoken)
                plain.append(heard)
                done = stop
            parts += [Text(text[done:])] if text[done:].strip() else []
            turns.append(Turn(turn.role, tuple(parts)))
        meta = {**chat.meta, "source": chat.id, "form": form, "synthetic": True, "voices": voices}
        meta["voice"] = voices[0] if len(set(voices)) == 1 else "several"
        made = Conversation(f"mixed-{item:06d}", tuple(turns), "mixed", self.lang, meta)
        return Made(made, tuple(clips)), plain

    def _clip(
        self, name: str, voice: str, said: str, random: np.random.Generator
    ) -> tuple[Speech, np.ndarray]:
        speaker = load_voice(voice)
        samples = say(speaker, _sentences(said), random)
        if len(samples) / speaker.rate > _LONGEST_S:
            raise ValueError(f"{said!r} takes more than {_LONGEST_S:.0f} s")
        plain = soxr.resample(samples, speaker.rate, SAMPLE_RATE)
        if not self.augment:
            return Speech(name, samples, speaker.rate), plain
        return Speech(
            name, augment(plain, SAMPLE_RATE, random, self.augment)[0], SAMPLE_RATE
        ), plain


def draw_spans(
    chat: Conversation, random: np.random.Generator
) -> tuple[str, dict[int, list[tuple[int, int]]]]:
    """Draw one of FORMS that the conversation allows, and what is spoken: (start, stop) by turn."""
    runs = _speakable_turns(chat)
    whole = [n for n in runs if _is_whole(chat.messages[n].text, runs[n])]
    long = [n for n in runs if sum(len(run) for run in runs[n]) >= 3]
    allowed = {"run": list(runs), "spans": long, "turn": whole, "turns": list(runs)[1:]}
    forms = [form for form in FORMS if allowed[form]]
    form = forms[int(random.integers(len(forms)))]
    if form != "turns":
        turn = allowed[form][int(random.integers(len(allowed[form])))]
        return form, {turn: _draw(form, runs[turn], random)}
    num_turns = int(random.integers(2, len(runs) + 1))
    chosen = sorted(random.permutation(list(runs))[:num_turns].tolist())
    ways = ["turn" if n in whole and random.random() < 0.5 else "run" for n in chosen]
    return form, {n: _draw(way, runs[n], random) for n, way in zip(chosen, ways, strict=True)}


def sentences_to_speak(text: str) -> list[list[tuple[int, int]]]:
    """Return the (start, stop) of each sentence that can be spoken, in runs without a gap."""
    blocks = [match.span() for match in _FENCE.finditer(text)]
    runs: list[list[tuple[int, int]]] = [[]]
    for match in _SENTENCE.finditer(text):
        start, stop = match.span()
        line = text[text.rfind("\n", 0, start) + 1 : stop]
        is_code = any(start < last and stop > first for first, last in blocks)
        if is_code or _NO_PROSE.match(line) or not _can_be_spoken(match.group()):
            runs.append([])
        else:
            runs[-1].append((start, stop))
    return [run for run in runs if run]


def _can_be_spoken(sentence: str) -> bool:
    letters = sum(c.isalpha() or c.isspace() for c in sentence)
    return (
        letters >= 0.7 * len(sentence)
        and len(sentence.split()) > 1
        and len(sentence) <= _LONGEST_CHARS
        and not _UNSPEAKABLE.search(sentence)
    )


def _draw(
    form: str, runs: list[list[tuple[int, int]]], random: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw what is spoken of one turn, as spans in order that a clip each can hold."""
    if form == "turn":
        return _joined(runs[0])
    if form == "run":
        run = runs[int(random.integers(len(runs)))]
        first = int(random.integers(len(run)))
        last = int(random.integers(first, len(run)))
        return _joined(run[first : last + 1])[:1]
    sentences = [sentence for run in runs for sentence in run]
    # Every other sentence at most, so that text or a pause stands between the clips.
    starts = range(int(random.integers(2 if len(sentences) > 3 else 1)), len(sentences), 2)
    chosen = sorted(random.permutation(starts)[: int(random.integers(2, 4))].tolist())
    return [sentences[n] for n in chosen]


def _joined(sentences: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbours into spans, each as long as a clip can be."""
    spans = [sentences[0]]
    for start, stop in sentences[1:]:
        if stop - spans[-1][0] <= _LONGEST_CHARS:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans


def _speakable_turns(chat: Conversation) -> dict[int, list[list[tuple[int, int]]]]:
    found = {
        number: sentences_to_speak(turn.text)
        for number, turn in enumerate(chat.messages)
        if turn.role == "user"
    }
    return {number: runs for number, runs in found.items() if runs}


def _is_whole(text: str, runs: list[list[tuple[int, int]]]) -> bool:
    return len(runs) == 1 and text[: runs[0][0][0]].strip() + text[runs[0][-1][1] :].strip() == ""


def _sentences(said: str) -> list[str]:
    return [match.group() for match in _SENTENCE.finditer(said)]
