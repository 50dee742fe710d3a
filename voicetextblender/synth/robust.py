"""What a model must not be fooled by: silence, noise, music, speech cut off, audio that is missing.

Asked for a transcript of what holds no words, the answer is empty; asked otherwise, it says what
there is to hear. Speech that breaks off is written down as far as it goes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Audio, Conversation, Turn, assistant, user
from voicetextblender.seeding import one_of, seeded
from voicetextblender.synth.augment import Noise, add_noise, make_noise
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, Speech, shard_name
from voicetextblender.synth.speakers import Speakers, draw_warp
from voicetextblender.text import draw_wording, transcribe_instruction

PER_GROUP = 20
Kind = Literal["silence", "noise", "music", "cut-off", "no-audio"]

_QUESTIONS = (
    "What is said in this recording?",
    "What do you hear?",
    "Who is speaking, and about what?",
    "Summarise this recording.",
    "What does the speaker want?",
    "Answer the question in this recording.",
)
_ANSWERS: dict[Kind, tuple[str, ...]] = {
    "silence": (
        "The recording is silent; nobody speaks in it.",
        "I hear nothing: there is no speech in this recording.",
        "There is only silence.",
    ),
    "noise": (
        "I hear only noise, and no speech.",
        "There is noise in the recording, but nobody speaks.",
        "Nothing is said; the recording holds nothing but noise.",
    ),
    "music": (
        "I hear music, and nobody speaks.",
        "The recording holds music without words.",
        "Nothing is said; there is only music.",
    ),
    "no-audio": (
        "There is no recording in your message. Please attach it, and I will listen to it.",
        "I cannot hear anything, as no audio came with your message.",
        "You have not attached a recording, so I do not know what is said in it.",
    ),
}
_BREAKS_OFF = {
    "Does the speaker finish the sentence?": 'No, it breaks off after "{}".',
    "Is this recording complete?": 'No, it ends in the middle of a sentence, after "{}".',
    "How does this end?": 'It breaks off after "{}"; what follows cannot be heard.',
}
_CHORDS = ((0, 4, 7), (0, 3, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16), (2, 5, 9))  # semitones


@dataclass(frozen=True, slots=True)
class Robust:
    """How such items are made; called with their numbers, it makes them."""

    sentences: tuple[str, ...]
    """Of six words or more, for speech that breaks off."""
    num_items: int = 500
    speakers: Speakers = Speakers()
    seed: int = 0

    def __post_init__(self) -> None:
        long = tuple(sentence for sentence in self.sentences if len(sentence.split()) >= 6)
        object.__setattr__(self, "sentences", long)
        if not long:
            raise ValueError("no sentence has six words or more, as speech that breaks off needs")

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        return in_groups(items, PER_GROUP, self._attempt)

    def _attempt(self, items: Sequence[int], attempt: int) -> Iterator[tuple[int, Made | Dropped]]:
        for item in items:
            random = seeded(self.seed, "robust", item, attempt)
            kind = get_args(Kind)[item % len(get_args(Kind))]
            voice = self.speakers.draw_voice(random)
            try:
                yield item, self._make(item, kind, voice, random)
            except ValueError as error:
                yield item, Dropped(item, kind, f"not able to be said by {voice}", str(error))

    def _make(self, item: int, kind: Kind, voice: str, random: np.random.Generator) -> Made:
        meta: dict[str, object] = {"kind": kind, "synthetic": True}
        name = f"{item:06d}.flac"
        place = f"{shard_name(item // PER_SHARD)}.tar#{name}"
        if kind == "no-audio":
            question = one_of((*_QUESTIONS, transcribe_instruction(self.speakers.lang)), random)
            turns = (user(question), assistant(one_of(_ANSWERS[kind], random)))
            return Made(self._conversation(item, turns, meta))
        if kind == "cut-off":
            meta["voice"] = voice
            words = one_of(self.sentences, random).split()
            samples, heard = _cut_off(words, self.speakers, voice, random)
        else:
            heard = ""
            num_samples = int(random.uniform(1, 12) * SAMPLE_RATE)
            samples = _sound(kind, num_samples, random)
        clip = Audio(place, duration=round(len(samples) / SAMPLE_RATE, 3), text=heard)
        if random.random() < 0.5:
            wording = draw_wording(random, self.speakers.lang)
            question, answer = wording.instruction, wording.answer(heard)
        elif kind == "cut-off":
            question = one_of(tuple(_BREAKS_OFF), random)
            answer = _BREAKS_OFF[question].format(" ".join(heard.split()[-3:]))
        else:
            question, answer = one_of(_QUESTIONS, random), one_of(_ANSWERS[kind], random)
        turns = (user(question, clip), assistant(answer))
        return Made(self._conversation(item, turns, meta), (Speech(name, samples, SAMPLE_RATE),))

    def _conversation(
        self, item: int, turns: tuple[Turn, ...], meta: dict[str, object]
    ) -> Conversation:
        return Conversation(f"robust-{item:06d}", turns, "robust", self.speakers.lang, meta)


def _cut_off(
    words: Sequence[str], speakers: Speakers, voice: str, random: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Return (S,) float32 samples that end within a word, and the words before it."""
    kept = int(random.integers(3, len(words) - 1))
    warp = draw_warp(speakers.warp, random)
    state = random.bit_generator.state
    whole = _without_end(speakers.say(voice, [" ".join(words[: kept + 1])], random, warp))
    random.bit_generator.state = state  # the same speed again, to learn where the last word begins
    before = _without_end(speakers.say(voice, [" ".join(words[:kept])], random, warp))
    last = max(0, len(whole) - len(before))
    heard = " ".join(words[:kept]).rstrip(",;:")
    return whole[: len(before) + int(last * random.uniform(0.2, 0.5))], heard


def _without_end(samples: np.ndarray) -> np.ndarray:
    """Return samples up to the last that can be heard."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=1e-6))
    return samples[: loud[-1] + 1] if len(loud) else samples


def _sound(kind: Kind, num_samples: int, random: np.random.Generator) -> np.ndarray:
    """Return (S,) float32 samples at SAMPLE_RATE in which nobody speaks."""
    faint = make_noise("pink", num_samples, random)
    if kind == "silence":  # a room is never quite silent, and a file sometimes is
        level = 0.0 if random.random() < 0.3 else random.uniform(1e-4, 2e-3)
        return _scaled(faint, level)
    level = random.uniform(0.03, 0.3)
    if kind == "noise":
        colour: Noise = ("white", "pink", "brown")[int(random.integers(3))]
        noise = make_noise(colour, num_samples, random)
        pulse = 1 + random.uniform(0, 0.9) * np.sin(
            2 * np.pi * random.uniform(0.1, 3) * np.arange(num_samples) / SAMPLE_RATE
        )
        return _scaled((noise * pulse).astype(np.float32), level)
    return add_noise(_scaled(_music(num_samples, random), level), faint, random.uniform(20, 50))


def _music(num_samples: int, random: np.random.Generator) -> np.ndarray:
    """Return (S,) float32 samples of a few chords and a melody over them."""
    beat = int(random.uniform(0.2, 0.6) * SAMPLE_RATE)
    root_hz = 110 * 2 ** (random.integers(12) / 12)
    num_partials = int(random.integers(1, 6))
    decay = random.uniform(1, 6)  # a plucked string, or an organ
    music = np.zeros(num_samples, dtype=np.float32)
    for number, start in enumerate(range(0, num_samples, beat)):
        if number % 4 == 0:
            chord = one_of(_CHORDS, random)
        tones = [12 + chord[int(random.integers(3))]] + (list(chord) if number % 4 == 0 else [])
        seconds = np.arange(min(4 * beat, num_samples - start)) / SAMPLE_RATE
        envelope = np.minimum(seconds / 0.01, 1) * np.exp(-decay * seconds)
        for tone in tones:
            for partial in range(1, num_partials + 1):
                pitch_hz = root_hz * 2 ** (tone / 12) * partial
                wave = np.sin(2 * np.pi * pitch_hz * seconds) / partial**1.5
                music[start : start + len(seconds)] += (wave * envelope).astype(np.float32)
    return music


def _scaled(samples: np.ndarray, level: float) -> np.ndarray:
    """Return samples whose root mean square is `level`, or less where they would clip."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    peak = float(np.abs(samples).max(initial=1e-9))
    return samples * np.float32(min(level / max(rms, 1e-9), 0.99 / peak))
