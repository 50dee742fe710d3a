"""Questions of self-instruct and Open-Assistant, for a language model to answer itself.

python data/prompts.py TEXT_FOLDER prompts.jsonl
vtb synth chat --prompts prompts.jsonl --writer smollm2-135m --number 9999 --out data/chat
"""

import gzip
import json
import sys
from pathlib import Path

from voicetextblender.chat import Conversation, to_line, user
from voicetextblender.seeding import seeded


def questions(folder: Path) -> list[str]:
    """Return short single-turn prompts, without duplicates, in a seeded order."""
    found: list[str] = []
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for line in (folder / name).open(encoding="utf-8"):
            task = json.loads(line)
            found.append(
                "\n".join(filter(None, [task["instruction"], task["instances"][0]["input"]]))
            )
    with gzip.open(folder / "oasst_en_100_message.jsonl.gz", "rt", encoding="utf-8") as lines:
        trees = [json.loads(line) for line in lines]
    while trees:
        message = trees.pop()
        trees += message["replies"]
        if message["role"] == "prompter" and not message["parent_id"]:
            found.append(message["text"])
    found = [text.strip() for text in dict.fromkeys(found) if 3 <= len(text.split()) <= 60]
    return [found[n] for n in seeded("chat", 0).permutation(len(found))]


if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    chats = [Conversation(f"prompt-{n:04d}", (user(q),)) for n, q in enumerate(questions(folder))]
    out.write_text("".join(to_line(chat) + "\n" for chat in chats), encoding="utf-8")
