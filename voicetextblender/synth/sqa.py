"""Spoken question answering: a writer asks about what is said in a clip, and answers.

The clips are those of conversations that exist; they stay where they are. A question is kept if the
writer, asked it again without the answer, comes to the same one. What nobody can answer is a
question about another clip, of whose words this one has none. With `distil` the answers are those
of the language model that is to be trained, to the question and the typed words, so that training
on them leaves it as it was.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.seeding import draw_seed, one_of, seeded
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.quality import (
    agreement,
    content_words,
    copies,
    is_written_in,
    repeats_itself,
)
from voicetextblender.synth.shards import Dropped, Made
from voicetextblender.synth.writers import Chat, Failed, Sampling, load_writer, write_json
from voicetextblender.text import LANGUAGES, normalise

PER_GROUP = 50  # half a shard, asked together
Kind = Literal["factual", "inferential", "yes-no", "summary", "format", "unanswerable", "distilled"]
KINDS: tuple[Kind, ...] = get_args(Kind)[:-1]

_ASKED = Sampling(temperature=0.7, max_tokens=100)
_CHECKED = Sampling(temperature=0.0, max_tokens=60)
_DISTILLED = Sampling(temperature=0.6, max_tokens=160)
_LEAST_AGREEMENT = 0.6
_LEAST_WORDS = {"summary": 25}  # of a transcript

_YES_NO = ["yes", "no", "ja", "nein", "oui", "non", "sí", "no", "sì", "sim", "não"]

_EXAMPLE = (
    "The ferry was late again this morning, so Mr. Bell missed his train and had to take a taxi to "
    "the office."
)
_REQUESTS = {  # what is asked for, and the answer for the example
    "factual": (
        "a question about a fact that is stated in it, and the short answer",
        "How did Mr. Bell get to the office?",
        "He took a taxi.",
    ),
    "inferential": (
        "a question whose answer is not stated in it but follows from it, and the short answer",
        "Is the ferry often late?",
        "It seems so, since it was late again.",
    ),
    "yes": (
        "a question about it that can be answered with yes, and the answer, which begins with Yes",
        "Did Mr. Bell take a taxi?",
        "Yes, he took one to the office.",
    ),
    "no": (
        "a question about it that must be answered with no, and the answer, which begins with No",
        "Did Mr. Bell catch his train?",
        "No, he missed it.",
    ),
}
_SUMMARISE = (
    "Summarise this in one sentence.",
    "What is this about?",
    "Give me the gist of this recording.",
    "In short, what does the speaker say?",
    "I have no time to listen. What is the main point?",
)
_BRIEFLY = " Answer in one short sentence, of fifteen words at most."  # said to the writer alone
_OPEN = (
    *_SUMMARISE,
    "How would you reply to this?",
    "Go on from where the speaker stops.",
    "Say this in simpler words.",
    "Give this a title.",
    "Which people and things are mentioned?",
    "What might the speaker be feeling?",
    "Write down three questions about this.",
    "Tell me more about what is said here.",
)
_NOT_SAID = (
    "The recording does not say.",
    "That is not mentioned in the recording.",
    "I cannot tell that from the recording.",
    "The speaker says nothing about that.",
    "There is no answer to that in what is said.",
)
_FORMATS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Answer in capital letters.", str.upper),
    ("Answer in lower case and without punctuation.", normalise),
    ("Put your answer in double quotes.", lambda answer: f'"{answer}"'),
    ('Begin your answer with "Answer:".', lambda answer: f"Answer: {answer}"),
    ("Write your answer as a bullet point.", lambda answer: f"- {answer}"),
    (
        'Answer as JSON with the one key "answer".',
        lambda answer: json.dumps({"answer": answer}, ensure_ascii=False),
    ),
)


class Pair(BaseModel):
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Sqa:
    """How questions are made; called with the numbers of items, it makes them."""

    clips: tuple[Conversation, ...]
    """With one clip each, whose words are known."""
    writer: str
    """Asks and answers; named as in `synth.writers`."""
    kinds: tuple[Kind, ...] = KINDS
    distil: str | None = None
    """Writer of the answers of the kind `distilled`: the model that is to be trained."""
    per_clip: int = 1
    """Questions about each clip, of different kinds."""
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(get_args(Kind))):
            raise ValueError(f"kind '{unknown[0]}' is unknown; use {', '.join(get_args(Kind))}")
        if not 1 <= self.per_clip <= len(self.kinds):
            raise ValueError(
                f"per_clip is {self.per_clip}; it must be 1 to {len(self.kinds)}, the number of "
                f"kinds of question"
            )
        if ("distilled" in self.kinds) != bool(self.distil):
            raise ValueError("the kind 'distilled' and distil, its writer, need each other")

    @property
    def num_items(self) -> int:
        return len(self.clips) * self.per_clip

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        return in_groups(items, PER_GROUP, self._attempt)

    def _attempt(self, items: Sequence[int], attempt: int) -> Iterator[tuple[int, Made | Dropped]]:
        kinds: dict[int, Kind] = {item: self._kind(item) for item in items}
        pairs = self._draft(kinds, attempt)
        for item, pair in pairs.items():
            if isinstance(pair, Pair):
                pairs[item] = _fault(kinds[item], pair, self._words(item), self._lang(item)) or pair
        self._answer_again(kinds, pairs)
        for item in items:
            pair, kind = pairs[item], kinds[item]
            if isinstance(pair, Failed):
                yield item, Dropped(item, kind, pair.reason, pair.why)
            else:
                yield item, self._made(item, kind, pair)

    def _draft(self, kinds: dict[int, Kind], attempt: int) -> dict[int, Pair | Failed]:
        """Have the writer ask and answer."""
        pairs: dict[int, Pair | Failed] = {}
        seeds = {item: draw_seed(seeded(self.seed, "sqa", item, attempt)) for item in kinds}
        asked = [item for item in kinds if kinds[item] not in ("summary", "distilled")]
        if asked:
            chats = [self._request(item, kinds[item], seeds[item]) for item in asked]
            drawn = [seeds[item] for item in asked]
            written = write_json(load_writer(self.writer), chats, drawn, Pair, _ASKED)
            pairs |= zip(asked, written, strict=True)
        for kind, who, pool, form, how in (
            ("summary", self.writer, _SUMMARISE, _BRIEFLY, _ASKED),
            ("distilled", self.distil, _OPEN, "", _DISTILLED),
        ):
            rows = [item for item in kinds if kinds[item] == kind]
            if not rows or not who:
                continue
            questions = [one_of(pool, seeded(self.seed, "question", item)) for item in rows]
            chats = [
                (user(f"{question}{form}\n{self._words(item)}"),)
                for question, item in zip(questions, rows, strict=True)
            ]
            answers = load_writer(who).write(chats, [seeds[item] for item in rows], how)
            for item, question, answer in zip(rows, questions, answers, strict=True):
                is_text = isinstance(answer, str)
                pairs[item] = Pair(question=question, answer=answer) if is_text else answer
        return pairs

    def _request(self, item: int, kind: Kind, seed: int) -> Chat:
        """Return what the writer is asked: with an example, as small ones need it."""
        key = "factual" if kind in ("format", "unanswerable") else kind
        if kind == "yes-no":
            key = "yes" if seeded(self.seed, "yes", item).random() < 0.5 else "no"
        about = item
        if kind == "unanswerable":
            others = len(self.clips) - 1
            step = 1 + int(seeded(seed, "other").integers(max(1, others)))
            about = (item // self.per_clip + step) % len(self.clips) * self.per_clip
        what, question, answer = _REQUESTS[key]
        lang = LANGUAGES.get(self._lang(item), "English")
        task = f"Read the text. Write {what}, both in {lang}, as JSON.\n\nText: "
        example = Pair(question=question, answer=answer).model_dump_json()
        return (
            user(task + _EXAMPLE),
            assistant(example),
            user(task + self._words(about)),
        )

    def _answer_again(self, kinds: dict[int, Kind], pairs: dict[int, Pair | Failed]) -> None:
        """Put down in `pairs` which questions the writer now answers otherwise."""
        asked = {
            item: pair
            for item, pair in pairs.items()
            if isinstance(pair, Pair)
            and kinds[item] in ("factual", "format", "inferential", "yes-no")
        }
        chats: list[Chat] = [
            (
                user(
                    f"Text: {self._words(item)}\n\nQuestion: {pair.question}\n"
                    f"Answer in a few words, from the text alone."
                ),
            )
            for item, pair in asked.items()
        ]
        again = load_writer(self.writer).write(chats, [0] * len(chats), _CHECKED) if chats else []
        others = [turn if isinstance(turn, str) else "" for turn in again]
        likeness = agreement([pair.answer for pair in asked.values()], others)
        for (item, pair), turn, alike in zip(asked.items(), again, likeness, strict=True):
            if isinstance(turn, Failed):
                pairs[item] = turn
            elif not _is_same_answer(kinds[item], pair.answer, turn, alike):
                told = f"{pair.question} {pair.answer} Or: {turn}"
                pairs[item] = Failed("answered otherwise when asked again", told)

    def _made(self, item: int, kind: Kind, pair: Pair) -> Made:
        source, random = self.clips[item // self.per_clip], seeded(self.seed, "form", item)
        question, answer = pair.question.strip(), pair.answer.strip()
        if kind == "unanswerable":
            answer = one_of(_NOT_SAID, random)
        if kind == "format":
            wanted, form = one_of(_FORMATS, random)
            question, answer = f"{question} {wanted}", form(answer)
        clip = source.clips[0]
        parts = (question, clip) if random.random() < 0.7 else (clip, question)
        writer = self.distil if kind == "distilled" else self.writer
        meta = {**source.meta, "kind": kind, "writer": writer, "made_from": source.id}
        turns = (user(*parts), assistant(answer))
        return Made(Conversation(f"sqa-{item:06d}", turns, "sqa", source.lang, meta))

    def _kind(self, item: int) -> Kind:
        """Return the kind of an item's question: those about one clip differ."""
        clip, number = divmod(item, self.per_clip)
        num_words = len(self._words(item).split())
        fit = [kind for kind in self.kinds if num_words >= _LEAST_WORDS.get(kind, 0)]
        order = seeded(self.seed, "kinds", clip).permutation(len(fit))
        return fit[order[number % len(fit)]]

    def _words(self, item: int) -> str:
        text = self.clips[item // self.per_clip].clips[0].text
        assert text, "clips are read with their words"
        return text

    def _lang(self, item: int) -> str:
        return self.clips[item // self.per_clip].lang or "en"


def _fault(kind: Kind, pair: Pair, words: str, lang: str) -> Failed | None:
    """Return what is wrong with a pair as far as the texts tell."""
    question, answer = pair.question.strip(), pair.answer.strip()
    told = f"{question} {answer}"
    if not answer or len(question.split()) < 3:
        return Failed("without a question or an answer", told)
    if kind != "distilled" and len(answer.split()) > 40:
        return Failed("answered at too great length", told)
    if repeats_itself(answer):
        return Failed("going in circles", told)
    if not is_written_in(told, lang):
        return Failed("written in another language", told)
    if kind == "distilled":
        return None
    if copies(answer, words):
        return Failed("a copy of what is said", told)
    if kind == "summary":
        is_short = len(answer.split()) < 0.7 * len(words.split())
        is_like = agreement([answer], [words])[0] >= _LEAST_AGREEMENT
        return None if is_short and is_like else Failed("no summary of what is said", told)
    if not question.endswith("?"):
        return Failed("without a question mark", told)
    asked, said = content_words(question), content_words(words)
    if kind == "unanswerable":
        is_apart = len(asked) > 1 and not asked & said
        return None if is_apart else Failed("perhaps to be answered after all", told)
    if not asked & said:
        return Failed("about something else", told)
    if kind == "yes-no":
        return None if _first_word(answer) in _YES_NO else Failed("neither yes nor no", told)
    new = content_words(answer) - said - asked
    if kind in ("factual", "format") and len(new) > len(content_words(answer)) / 2:
        return Failed("answered with what is not said", told)
    return None


def _is_same_answer(kind: Kind, answer: str, other: str, alike: float) -> bool:
    if kind == "yes-no":
        return _first_word(answer) == _first_word(other)
    one, two = content_words(answer), content_words(other)
    return alike >= _LEAST_AGREEMENT or bool(one and two and (one <= two or two <= one))


def question_about(conversation: Conversation) -> str:
    """Return what makes two questions the same: their words, and what they are asked about."""
    question, clip = conversation.messages[0].text, conversation.clips[0]
    return f"{normalise(question)} {clip.audio} {clip.start}"


def _first_word(text: str) -> str:
    return (normalise(text).split() or [""])[0]
