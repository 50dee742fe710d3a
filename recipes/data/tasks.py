"""Chats made by rule whose answers are right: `python recipes/data/tasks.py TEXT OUT NUMBER`.

TEXT has a sentence a line; OUT gets JSONL for `vtb synth mixed`. A request is typed on a line of
its own, with what it is about on the next, so that either of them, or both, can be spoken: a form
that the answer must have, a list, a name, a small sum, or something to remember over turns. Names,
things and wordings are other ones than those of the sets in `voicetextblender/eval`.
"""

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from voicetextblender.chat import Conversation, Turn, assistant, to_line, user
from voicetextblender.text import normalise

META = {"license": "Apache-2.0", "source": "recipes/data/tasks.py"}


def pool(words: str) -> list[str]:
    return words.split()


FIRST = pool(
    "Alice Amelia Andrew Brian Carol Charles Chloe Daniel Diana Edward Eleanor Ethan Fiona Frank "
    "George Grace Hannah Harold Helen Henry Irene Jack Jane Jason Karen Kevin Laurence Linda "
    "Louise Lucas Martin Michelle Nathan Nora Oliver Oscar Patricia Philip Rachel Rebecca Richard "
    "Robert Ruth Samuel Sandra Stephen Susan Teresa Thomas Victor Vincent Walter"
)
LAST = pool(
    "Abbott Baker Barlow Bennett Bishop Bradley Campbell Carter Chapman Clarke Coleman Cooper "
    "Dawson Dixon Edwards Fletcher Foster Gardner Gibson Graham Hamilton Harper Harris Holland "
    "Hughes Jenkins Kennedy Lambert Lawson Marshall Mason Mitchell Morgan Murray Newman Palmer "
    "Parker Patterson Phillips Porter Reynolds Richards Robertson Russell Saunders Shaw Simmons "
    "Sullivan Turner Wallace Watson Webster Wheeler Woods"
)
JOBS = pool(
    "accountant baker barber carpenter cook dentist electrician gardener journalist lawyer "
    "librarian mechanic nurse painter photographer pilot plumber postman sailor tailor teacher "
    "translator waiter"
)
TOWNS = pool(
    "Aberdeen Bristol Brighton Cardiff Denver Dresden Exeter Geneva Glasgow Hamburg Houston Leeds "
    "Liverpool Lyon Manchester Milan Montreal Naples Oxford Phoenix Plymouth Portland Seattle "
    "Sheffield Stockholm Sydney Toronto Venice Warsaw York"
)
GOODS = pool(
    "apples bananas batteries biscuits bread butter candles carrots cheese cherries eggs envelopes "
    "flour garlic grapes honey jam lemons lettuce matches mushrooms mustard noodles onions oranges "
    "paper pears pepper potatoes rice salt soap stamps strawberries sugar tomatoes towels vinegar"
)
DAYS = pool("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBERS = pool("zero one two three four five six seven eight nine ten eleven twelve")
Made = tuple[Turn, ...]


def forms(rng: random.Random, sentences: list[str]) -> Made:
    """A sentence, to be given back in some form."""
    said = rng.choice(sentences)
    as_json = json.dumps({"sentence": said})
    words = said.rstrip(".?!").split()
    ask, answer = rng.choice(
        (
            ("Give the next sentence back to me in block capitals.", said.upper()),
            ("Put the next sentence in small letters, without punctuation.", normalise(said)),
            ("What are the first three words of this sentence?", " ".join(words[:3])),
            ("What is the last word of this sentence?", words[-1].strip(",;:")),
            ("How many words does this sentence have?", f"It has {len(words)} words."),
            ("Wrap the sentence below in brackets.", f"({said})"),
            ("Return the sentence below as JSON, under the key sentence.", as_json),
            ("Repeat the sentence below twice.", f"{said} {said}"),
            ("Put each word of this sentence on a line of its own.", "\n".join(words)),
            ("Begin your answer with the word Sentence and a colon, and then repeat what follows.",
             f"Sentence: {said}"),
        )
    )  # fmt: skip
    return user(f"{ask}\n{said}"), assistant(answer)


def lists(rng: random.Random, _: list[str]) -> Made:
    """Things that are named in passing, to be written as a list."""
    things = rng.sample(GOODS, rng.randint(3, 5))
    named = f"{', '.join(things[:-1])} and {things[-1]}"
    said = rng.choice(
        (
            "We have run out of {}.",
            "Please bring {} from the shop.",
            "I still have to buy {}.",
            "For the weekend we need {}.",
            "Put {} on my shopping list.",
        )
    ).format(named)
    ask, answer = rng.choice(
        (
            ("Write the things as a list with dashes.", "\n".join(f"- {t}" for t in things)),
            (
                "Number the things that are mentioned.",
                "\n".join(f"{n}. {t}" for n, t in enumerate(things, 1)),
            ),
            ("Sort the things by the alphabet.", ", ".join(sorted(things))),
            ("How many things are mentioned?", f"{NUMBERS[len(things)].capitalize()} things."),
            ("Which thing is mentioned first?", things[0].capitalize() + "."),
            ("Which thing is mentioned last?", things[-1].capitalize() + "."),
            ("Write the things as a JSON array.", json.dumps(things)),
        )
    )
    return user(*_either_order(rng, ask, said)), assistant(answer)


def names(rng: random.Random, _: list[str]) -> Made:
    """A name, a day and a time, one of which is asked for."""
    name, day = f"{rng.choice(FIRST)} {rng.choice(LAST)}", rng.choice(DAYS)
    hour, town = rng.choice(NUMBERS[1:]), rng.choice(TOWNS)
    as_json = json.dumps({"name": name, "day": day, "town": town})
    said = rng.choice(
        (
            f"This is {name} speaking, and I will arrive in {town} on {day} at {hour} o'clock.",
            f"Book a table for {name} on {day} at {hour} o'clock, in the restaurant in {town}.",
            f"On {day} at {hour} o'clock there is a visit to {town} with {name}.",
        )
    )
    ask, answer = rng.choice(
        (
            ("Whose name is in this message?", f"{name}."),
            ("On which day is this?", f"On {day}."),
            ("At what time is it?", f"At {hour} o'clock."),
            ("Which town is mentioned here?", f"{town}."),
            ("Write name, day and town as JSON.", as_json),
            ("Just give me the surname.", name.split()[1]),
        )
    )  # fmt: skip
    return user(*_either_order(rng, ask, said)), assistant(answer)


def counting(rng: random.Random, _: list[str]) -> Made:
    """A small sum, in words."""
    one, two = rng.randint(2, 12), rng.randint(2, 12)
    high, low = max(one, two), min(one, two)
    n = dict(enumerate(NUMBERS))
    ask, answer = rng.choice(
        (
            (f"How much do {n[one]} and {n[two]} make?", f"{one} and {two} make {one + two}."),
            (f"Take {n[low]} away from {n[high]}.", f"{high} less {low} is {high - low}."),
            (f"How much is {n[one]} multiplied by {n[two]}?", f"{one} × {two} = {one * two}."),
            (f"Which number is larger, {n[one]} or {n[two]}?",
             f"{high}." if one != two else "They are the same."),
            (f"Count from {n[low]} to {n[high]}.", ", ".join(map(str, range(low, high + 1)))),
            (f"Which number comes after {n[one]}?", f"{one + 1}."),
        )
    )  # fmt: skip
    return user(ask), assistant(answer)


def remembered(rng: random.Random, sentences: list[str]) -> Made:
    """Something that is said first, and asked about after another turn or at once."""
    name, job, town = rng.choice(FIRST), rng.choice(JOBS), rng.choice(TOWNS)
    who = rng.choice(("neighbour", "cousin", "colleague", "friend", "boss"))
    article = "an" if job[0] in "ae" else "a"
    said = f"My {who} {name} works as {article} {job} in {town}."
    ask, answer = rng.choice(
        (
            (f"What is the name of my {who}?", f"Your {who} is called {name}."),
            (f"What does my {who} do for a living?", f"Your {who} works as {article} {job}."),
            (f"In what town does {name} work?", f"{name} works in {town}."),
            ("Please repeat what I told you at the beginning.", f'You said: "{said}"'),
        )
    )
    begin = user(said), assistant(rng.choice(("I see.", "Thank you for telling me.", "All right.")))
    if rng.random() < 0.5:
        return *begin, user(ask), assistant(answer)
    between = rng.choice(sentences)
    asked = user(f"Say the following after me.\n{between}"), assistant(between)
    return *begin, *asked, user(ask), assistant(answer)


KINDS: dict[str, Callable[[random.Random, list[str]], Made]] = {
    "forms": forms,
    "lists": lists,
    "names": names,
    "counting": counting,
    "remembered": remembered,
}


def main(text: Path, out: Path, number: str) -> None:
    rng = random.Random(0)
    lines = gzip.decompress(text.read_bytes()).decode().splitlines()
    sentences = [line for line in lines if 4 <= len(line.split()) <= 14]
    chats: dict[str, str] = {}
    while len(chats) < int(number):
        kind = list(KINDS)[len(chats) % len(KINDS)]
        turns = KINDS[kind](rng, sentences)
        meta = {**META, "task": kind}
        chat = Conversation(f"task-{len(chats):05d}", turns, "text", "en", meta)
        chats.setdefault(repr(turns), to_line(chat) + "\n")
    out.write_text("".join(chats.values()), encoding="utf-8")
    print(f"{out}: {len(chats)} chats")


def _either_order(rng: random.Random, ask: str, said: str) -> tuple[str]:
    return ("\n".join((ask, said) if rng.random() < 0.6 else (said, ask)),)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
