"""Split what `vtb data import asterisk DIR` wrote: `python recipes/data/asterisk.py DIR TEST`.

TEST is a file of conversations whose prompts must be among the test prompts (data/asterisk/
test.jsonl). A tenth of all prompts is added to them. DIR gets `train-asr-XX.jsonl`,
`test-asr-XX.jsonl`, and the same for `ast-XX-YY`. A prompt is in one part in all languages, and one
that is much like a test prompt, in any language, is in neither.
"""

import sys
from pathlib import Path

from sentences import HeldOut, held_out_texts

from voicetextblender.chat import Conversation, parse_line
from voicetextblender.seeding import seeded


def main(folder: Path, test_path: Path) -> None:
    files = sorted(path for kind in ("asr", "ast") for path in folder.glob(f"{kind}-*.jsonl"))
    lines = {path: path.read_text("utf-8").splitlines() for path in files}
    parsed = {path: [parse_line(line, str(path)) for line in lines[path]] for path in files}
    keys = sorted({key_of(c) for of_file in parsed.values() for c in of_file})
    given = {
        key_of(parse_line(line, str(test_path)))
        for line in test_path.read_text("utf-8").splitlines()
    }
    test = given | set(seeded(0, "asterisk").choice(keys, len(keys) // 10, replace=False))
    texts = {
        text
        for of_file in parsed.values()
        for c in of_file
        if key_of(c) in test
        for text in said(c)
    }
    held_out = HeldOut([*texts, *held_out_texts(test_path)])
    alike = {
        key_of(c) for of_file in parsed.values() for c in of_file if any(map(held_out.has, said(c)))
    } - test
    for path in files:
        parts: dict[str, list[str]] = {"train": [], "test": []}
        for line, conversation in zip(lines[path], parsed[path], strict=True):
            key = key_of(conversation)
            if key not in alike:
                parts["test" if key in test else "train"].append(line + "\n")
        for part, of_part in parts.items():
            (folder / f"{part}-{path.name}").write_text("".join(of_part), encoding="utf-8")
    print(f"{len(keys)} prompts: {len(test)} to test with, {len(alike)} much like them left out")


def key_of(conversation: Conversation) -> str:
    """Return the prompt's name, which is the same in all languages."""
    return conversation.clips[0].audio.rpartition("clips/")[2].split("/", 1)[1]


def said(conversation: Conversation) -> list[str]:
    """Return what is said, and what is answered where that is a translation."""
    answer = conversation.messages[-1].parts[0]
    return [conversation.clips[0].text or "", getattr(answer, "text", "")]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
