"""Make the small text sets of `data/eval`: `build_retention.py ARC-Challenge-Dev.jsonl.gz`.

`arc.jsonl` is a sample of ARC (Clark et al. 2018), CC BY-SA 4.0. `sums.jsonl` (word problems) and
`instructions.jsonl` (instructions that a program can check) are made here, by rule and seed.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np

from voicetextblender.chat import Conversation, assistant, to_line, user

HERE = Path(__file__).parent / "eval"
NUM_ARC, NUM_SUMS = 80, 60
STORIES = (
    ("{who} has {a} {things} and buys {b} more. How many {things} does {who} have now?", "+"),
    ("There are {a} {things} on the table. {who} takes {b} away. How many {things} are left?", "-"),
    ("{who} fills {a} boxes with {b} {things} each. How many {things} are that in all?", "*"),
    ("{who} had {a} {things}, lost {b} and then found {c}. How many {things} are there now?", "-+"),
)
WHO = ("Anna", "Ben", "Chen", "Dora", "Emil", "Fatima")
THINGS = ("apples", "books", "stamps", "marbles", "cards", "shells")
TOPICS = ("the sea", "a dog", "winter", "bread", "trains", "music", "the moon", "a garden")
CHECKS = (
    ("Write about {} in capital letters only.", {"name": "upper_case"}),
    ("Write about {} in small letters only.", {"name": "lower_case"}),
    (
        "Write three things about {} as a list with dashes.",
        {"name": "bullets", "least": 3, "most": 3},
    ),
    ("Write one sentence about {} without any comma.", {"name": "no_comma"}),
    (
        "Write about {} in at most ten words.",
        {"name": "length", "unit": "words", "least": 1, "most": 10},
    ),
    (
        "Describe {} as JSON with the keys name and use.",
        {"name": "is_json", "keys": ["name", "use"]},
    ),
    ("Write about {} and end with the words The end.", {"name": "ends_with", "text": "the end"}),
    ("Write about {}, your whole answer in double quotation marks.", {"name": "quoted"}),
)


def arc(path: Path) -> list[Conversation]:
    """Return items of ARC, evenly spaced through its file."""
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    items = []
    for place in range(NUM_ARC):
        row = rows[place * len(rows) // NUM_ARC]
        texts = [choice["text"] for choice in row["question"]["choices"]]
        labels = [choice["label"] for choice in row["question"]["choices"]]
        right = texts[labels.index(row["answerKey"])]
        turns = (user(row["question"]["stem"]), assistant(right))
        meta = {"choices": texts, "license": "CC-BY-SA-4.0", "source": "ARC-Challenge dev"}
        items.append(Conversation(f"arc-{row['id']}", turns, "choice", "en", meta))
    return items


def sums() -> list[Conversation]:
    """Return word problems of one step, and some of two."""
    random, items = np.random.default_rng(0), []
    for n in range(NUM_SUMS):
        story, kind = STORIES[n % len(STORIES)]
        a, b, c = (int(x) for x in random.integers((10, 2, 2), (40, 10, 10)))
        answer = {"+": a + b, "-": a - b, "*": a * b, "-+": a - b + c}[kind]
        words = {"who": random.choice(WHO), "things": random.choice(THINGS)}
        turns = (user(story.format(a=a, b=b, c=c, **words)), assistant(str(answer)))
        items.append(Conversation(f"sum-{n + 1:02d}", turns, "number", "en", {"kind": kind}))
    return items


def instructions() -> list[Conversation]:
    """Return every instruction with every topic; the reference says what is checked."""
    return [
        Conversation(
            f"instruction-{check['name']}-{n + 1}",
            (user(form.format(topic)), assistant(f"(checked by program: {check['name']})")),
            *("instruction", "en", {"check": check, "kind": check["name"]}),
        )
        for form, check in CHECKS
        for n, topic in enumerate(TOPICS)
    ]


def write(name: str, items: list[Conversation]) -> None:
    """Write a set."""
    text = "".join(to_line(item) + "\n" for item in items)
    (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write("arc", arc(Path(sys.argv[1])))
    write("sums", sums())
    write("instructions", instructions())
