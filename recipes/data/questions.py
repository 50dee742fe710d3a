"""Prepare questions to ask aloud: `python recipes/data/questions.py CHATS TEXT OUT HELD_OUT…`.

OUT is JSONL of conversations of one user turn, for `vtb synth chat --prompts`. They are the first
turns of CHATS (JSONL) as far as they are short, questions among the sentences of TEXT (one a line),
and questions by rule about the things below. Some ask for a short answer. HELD_OUT are test sets,
as for `sentences.py`: what is much like one of their texts, spoken or typed, is left out.
"""

import gzip
import random
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sentences import HeldOut, held_out_texts

from voicetextblender.chat import Conversation, parse_line, to_line, user
from voicetextblender.text import normalise

FEWEST, MOST = 4, 30  # words
SHARE_BRIEF = 0.85  # a small model ends few of its answers otherwise
BRIEFLY = (
    "Answer in one sentence.",
    "Please keep it short.",
    "In one sentence, please.",
    "Answer briefly.",
    "Just a short answer, please.",
    "Tell me in a few words.",
)
ASKS = re.compile(
    r"(what|how|why|who|where|when|which|is|are|can|could|do|does|did|should|would|will)\b.*\?$"
    r"|(tell me|explain|describe|give me|name|help me|suggest|recommend)\b",
    re.IGNORECASE,
)
THINGS = """bread, butter, cheese, chocolate, coffee, honey, olive oil, pasta, rice, salt, sugar,
tea, vinegar, yoghurt, glass, paper, steel, cotton, wool, silk, rubber, plastic, soap,
candles, bricks, bicycles, bridges, cameras, clocks, engines, guitars, lighthouses,
magnets, mirrors, pianos, refrigerators, sailing boats, telescopes, tractors, trains,
umbrellas, violins, windmills, clouds, earthquakes, fog, glaciers, lightning,
rainbows, snow, tides, tornadoes, volcanoes, waterfalls, ants, bears, butterflies,
camels, crows, dolphins, eagles, elephants, foxes, frogs, hedgehogs, lions, octopuses,
owls, penguins, salmon, sharks, squirrels, tigers, wolves, apples, bananas, cactuses,
ferns, grapes, mushrooms, oak trees, onions, pine trees, potatoes, roses, seaweed,
tomatoes, baseball, chess, cricket, football, gymnastics, hockey, judo, rowing,
swimming, tennis, yoga, algebra, archaeology, astronomy, biology, chemistry,
economics, geography, geometry, history, law, philosophy, physics, psychology,
accountants, bakers, carpenters, dentists, farmers, firefighters, gardeners,
journalists, judges, librarians, nurses, pilots, plumbers, sailors, teachers,
democracy, friendship, inflation, insurance, money, patience, photosynthesis,
recycling, sleep, solar energy, taxes, memory, dreams, computer viruses, databases,
electric cars, the internet, lasers, radios, robots, satellites, solar panels,
vaccines, wind turbines, the heart, the liver, the moon, the skin, the stomach, the
Middle Ages, the Renaissance, the Roman Empire, ancient Egypt, jazz, opera, ballet,
painting, pottery, poetry, theatre, photography, gardening, cooking, hiking, camping,
sewing, fishing, skiing"""
ABOUT = (
    "Tell me about {}.",
    "What do you know about {}?",
    "Why do people care about {}?",
    "Could you explain {} to a child?",
    "What is interesting about {}?",
    "Give me one fact about {}.",
    "What would the world be like without {}?",
    "Describe {} to somebody who has never seen or heard of it before.",
    "What is the first thing that comes to mind when you think of {}?",
    "How would I learn more about {}?",
    "What is a good title for a book about {}?",
    "Can you write a short poem about {}?",
    "Write two sentences about {}.",
    "Where would I come across {}?",
    "I am curious about {}. Where should I start?",
    "What is the biggest problem with {}?",
    "My daughter asked me about {} today. What should I say?",
    "How did {} change over time?",
    "Make up a riddle about {}.",
    "What do most people get wrong about {}?",
)
BETWEEN = (
    "What do {} and {} have in common?",
    "In what way are {} and {} different?",
    "Would you rather talk about {} or about {}, and why?",
    "Compare {} with {}.",
    "Write a sentence with both {} and {} in it.",
)
PER_THING = 12  # questions by rule
MOST_SENTENCES = 2500  # most of which one needs to have been there to answer


RULES = {"license": "Apache-2.0", "source": "recipes/data/questions.py"}
SENTENCES = {"license": "CC-BY-2.0-FR", "source": "Tatoeba"}
Question = tuple[str, Mapping[str, object]]  # and where it is from


def of_chats(path: Path) -> Iterator[Question]:
    """Yield the first turns that can be spoken as they stand."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        chat = parse_line(line, f"{path}:{number}")
        text = chat.messages[0].text.strip()
        if "\n" not in text and not re.search(r"[<>{}\[\]|=_*#`/]|https?:|\d{4}", text):
            yield text, chat.meta


def by_rule(rng: random.Random) -> Iterator[Question]:
    things = " ".join(THINGS.split()).split(", ")
    for thing in things:
        for wording in rng.sample(ABOUT, PER_THING - 2):
            yield wording.format(thing), RULES
        for wording in rng.sample(BETWEEN, 2):
            other = rng.choice([other for other in things if other != thing])
            yield wording.format(thing, other), RULES


def of_sentences(path: Path) -> list[Question]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    asked = [line for line in lines if ASKS.match(line) and len(line.split()) > 5]
    return [(line, SENTENCES) for line in asked[:MOST_SENTENCES]]


def typed_texts(path: Path) -> Iterator[str]:
    """Yield what is typed in a test set, beside what is said."""
    yield from held_out_texts(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield from (turn.text for turn in parse_line(line, f"{path}:{number}").messages)


def main(chats: Path, text: Path, out: Path, *held_out_paths: Path) -> None:
    rng = random.Random(0)
    held_out = HeldOut(said for path in held_out_paths for said in typed_texts(path))
    found: dict[str, Question] = {}
    counts = []
    for kind in (of_chats(chats), by_rule(rng), of_sentences(text)):
        before = len(found)
        for question, meta in kind:
            if FEWEST <= len(question.split()) <= MOST and not held_out.has(question):
                found.setdefault(normalise(question), (question, meta))
        counts.append(len(found) - before)
    questions = list(found.values())
    rng.shuffle(questions)
    lines = []
    for number, (question, meta) in enumerate(questions):
        if rng.random() < SHARE_BRIEF:
            question = f"{question} {rng.choice(BRIEFLY)}"
        asked = Conversation(f"question-{number:05d}", (user(question),), "text", "en", meta)
        lines.append(to_line(asked) + "\n")
    out.write_text("".join(lines), encoding="utf-8")
    print(f"{out}: {len(lines)} questions: {counts} of chats, by rule and of sentences")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
