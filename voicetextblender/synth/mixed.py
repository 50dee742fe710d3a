"""Mixed-modal conversations: parts of what a user typed are spoken, the rest stays text.

A turn is cut into sentences. Code, tables, links and formulas cannot be spoken, so they stay as
they are; of the rest a run of sentences, several runs, the whole turn, or several turns are spoken.
The typed twin of what is made is the conversation that it was made from.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Audio, Conversation, Part, Text, Turn
from voicetextblender.seeding import one_of, seeded
from voicetextblender.synth.augment import Meta
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, Speech, shard_name
from voicetextblender.synth.speakers import Speakers, draw_warp

PER_GROUP = 20
Form = Literal["run", "spans", "turn", "turns"]
FORMS: tuple[Form, ...] = get_args(Form)

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
    speakers: Speakers = Speakers()
    """A voice of theirs is drawn for each conversation, or, in a third of them, for each clip."""
    variants: int = 2
    """Made of each conversation, each with other parts spoken."""
    forms: tuple[Form, ...] = FORMS
    """What may be spoken of a conversation; those that allow none of these are left out."""
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.forms) - set(FORMS)):
            raise ValueError(f"form '{unknown[0]}' is unknown; use {', '.join(FORMS)}")
        fit = tuple(chat for chat in self.chats if _allowed(chat).keys() & {*self.forms})
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
            by = self.speakers.draw_voice(random)
            try:
                drafts.append((item, *self._speak(item, by, random)))
            except ValueError as error:
                yield item, Dropped(item, by, "not able to say it", str(error))
        clips = [clip for _, _, clips in drafts for clip in clips]
        texts = [clip.text or "" for _, made, _ in drafts for clip in made.conversation.clips]
        told = self.speakers.misheard(clips, texts)
        for item, made, clips in drafts:
            wrong, told = told[: len(clips)], told[len(clips) :]
            why = next(filter(None, wrong), None)
            by = str(made.conversation.meta["voice"])
            yield item, Dropped(item, by, "heard otherwise", why) if why else made

    def _speak(
        self, item: int, voice: str, random: np.random.Generator
    ) -> tuple[Made, list[np.ndarray]]:
        """Return the conversation, and its clips as a recogniser is to hear them."""
        chat = self.chats[item // self.variants]
        form, spans = draw_spans(chat, random, self.forms)
        has_several_voices = random.random() < 1 / 3
        warp = draw_warp(self.speakers.warp, random)
        voices: list[str] = []
        conditions: list[Meta | None] = []
        clips: list[Speech] = []
        plain: list[np.ndarray] = []
        turns: list[Turn] = []
        for number, turn in enumerate(chat.messages):
            text, done, parts = turn.text, 0, list[Part]()
            for start, stop in spans.get(number, ()):
                if voices and has_several_voices:
                    voice = self.speakers.draw_voice(random)
                    warp = draw_warp(self.speakers.warp, random)
                said = " ".join(text[start:stop].split())
                heard = self.speakers.say(voice, _sentences(said), random, warp)
                duration = len(heard) / SAMPLE_RATE
                if duration > _LONGEST_S:
                    raise ValueError(f"{said!r} takes more than {_LONGEST_S:.0f} s")
                samples, done_to_it = self.speakers.put_in_conditions(heard, random)
                spoken = Speech(f"{item:06d}-{len(clips)}.flac", samples, SAMPLE_RATE)
                audio = f"{shard_name(item // PER_SHARD)}.tar#{spoken.name}"
                parts += [Text(text[done:start])] if text[done:start] else []
                parts.append(Audio(audio, duration=round(duration, 3), text=said))
                voices.append(voice)
                conditions.append(done_to_it)
                clips.append(spoken)
                plain.append(heard)
                done = stop
            parts += [Text(text[done:])] if text[done:].strip() else []
            turns.append(Turn(turn.role, tuple(parts)))
        made_as = {"made_from": chat.id, "form": form, "synthetic": True, "voices": voices}
        meta: dict[str, object] = {**chat.meta, **made_as}
        if any(conditions):
            meta["conditions"] = conditions
        meta["voice"] = voices[0] if len(set(voices)) == 1 else "several"
        made = Conversation(f"mixed-{item:06d}", tuple(turns), "mixed", self.speakers.lang, meta)
        return Made(made, tuple(clips)), plain


def draw_spans(
    chat: Conversation, random: np.random.Generator, forms: Sequence[Form] = FORMS
) -> tuple[Form, dict[int, list[tuple[int, int]]]]:
    """Draw a form that the conversation allows, and what is spoken: (start, stop) by turn."""
    runs, allowed = _speakable_turns(chat), _allowed(chat)
    fit: list[Form] = [form for form in FORMS if form in forms and form in allowed]
    form = one_of(fit, random)
    if form != "turns":
        turn = one_of(allowed[form], random)
        return form, {turn: _draw(form, runs[turn], random)}
    whole = allowed.get("turn", ())
    num_turns = int(random.integers(2, len(runs) + 1))
    chosen = sorted(random.permutation(list(runs))[:num_turns].tolist())
    ways: list[Form] = ["turn" if n in whole and random.random() < 0.5 else "run" for n in chosen]
    return form, {n: _draw(way, runs[n], random) for n, way in zip(chosen, ways, strict=True)}


def _allowed(chat: Conversation) -> dict[Form, list[int]]:
    """Return the forms that a conversation allows, each with the turns it may be drawn for."""
    runs = _speakable_turns(chat)
    allowed: dict[Form, list[int]] = {
        "run": list(runs),
        "spans": [n for n in runs if sum(map(len, runs[n])) >= 3],
        "turn": [n for n in runs if _is_whole(chat.messages[n].text, runs[n])],
        "turns": list(runs) if len(runs) > 1 else [],
    }
    return {form: turns for form, turns in allowed.items() if turns}


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
    form: Form, runs: list[list[tuple[int, int]]], random: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw what is spoken of one turn, as spans in order that a clip each can hold."""
    if form == "turn":
        return _joined(runs[0])
    if form == "run":
        run = one_of(runs, random)
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
