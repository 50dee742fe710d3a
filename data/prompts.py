"""Chats of self-instruct and Open-Assistant (Apache-2.0), with the answers that people gave.

python data/prompts.py TEXT_FOLDER chats.jsonl
vtb synth mixed chats.jsonl --out data/mixed                      # parts of them spoken
vtb synth chat --prompts chats.jsonl --number 9999 --out data/chat  # a model's own answers
"""

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from voicetextblender.chat import Conversation, Turn, assistant, to_line, user
from voicetextblender.seeding import seeded
from voicetextblender.synth.quality import is_written_in, repeats_itself

# Whom a model was told to be; another is to be trained.
A_MODEL = re.compile(r"Open ?-?Assistant|ChatGPT|OpenAI|LAION|language model", re.IGNORECASE)
MOST_ASKED, MOST_ANSWERED = 60, 150  # words


def tasks(path: Path) -> Iterator[tuple[Turn, ...]]:
    """Yield the tasks of self-instruct, each with its first instance."""
    for line in path.open(encoding="utf-8"):
        task = json.loads(line)
        instance = task["instances"][0]
        asked = "\n".join(filter(None, [task["instruction"], instance["input"]]))
        yield user(asked.strip()), assistant(instance["output"].strip())


def threads(message: dict, before: tuple[Turn, ...] = ()) -> Iterator[tuple[Turn, ...]]:
    """Yield the threads of an Open-Assistant tree, as far as their turns are short."""
    is_asked = message["role"] == "prompter"
    turns = (*before, (user if is_asked else assistant)(message["text"].strip()))
    num_words = len(message["text"].split())
    is_short = num_words <= (MOST_ASKED if is_asked else MOST_ANSWERED)
    going_on = [t for r in message["replies"][:3] for t in threads(r, turns)] if is_short else []
    if going_on:
        yield from going_on
    elif len(turns) > 1:
        whole = turns if is_short else turns[:-1]
        yield whole[: len(whole) // 2 * 2]


def is_fit(turns: tuple[Turn, ...]) -> bool:
    """Tell whether each turn is English, of some length, and neither a circle nor of itself."""
    asked, answered = turns[::2], turns[1::2]
    return (
        len(turns) > 1
        and all(3 <= len(turn.text.split()) <= MOST_ASKED for turn in asked)
        and all(1 <= len(turn.text.split()) <= MOST_ANSWERED for turn in answered)
        and not any(A_MODEL.search(turn.text) for turn in answered)
        and all(is_written_in(t.text, "en") and not repeats_itself(t.text) for t in turns)
    )


def main(folder: Path, out: Path) -> None:
    found: dict[str, tuple[Turn, ...]] = {}
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        found |= {turns[0].text: turns for turns in tasks(folder / name)}
    with gzip.open(folder / "oasst_en_100_message.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            for turns in threads(json.loads(line)):
                found[" ".join(turn.text for turn in turns)] = turns
    fit = [turns for turns in found.values() if is_fit(turns)]
    order = seeded("chats", 0).permutation(len(fit))
    chats = [
        Conversation(f"chat-{n:04d}", fit[row], "text", "en", {"license": "Apache-2.0"})
        for n, row in enumerate(order)
    ]
    out.write_text("".join(to_line(chat) + "\n" for chat in chats), encoding="utf-8")
    print(f"{out}: {len(chats)} chats, {sum(len(c.messages) for c in chats)} turns")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
