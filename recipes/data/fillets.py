"""Czech and Dutch game dialogue with translations: `python recipes/data/fillets.py GAME OUT`.

GAME is `share/games/fillets-ng` of Debian's `fillets-ng-data`, `-cs` and `-nl` together (Fish
Fillets: two fish and many others talk; GPL-2). Every line has its text and an English translation
by people. OUT gets `asr-cs.jsonl`, `asr-nl.jsonl`, `ast-cs-en.jsonl`, `ast-nl-en.jsonl`, and of
each a tenth, by the level of the game, as `test/…`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from voicetextblender.audio import load
from voicetextblender.chat import Audio
from voicetextblender.data.importing import Conversations, UnusableEntry, Utterance
from voicetextblender.seeding import seeded

META = {"license": "GPL-2.0", "source": "Debian fillets-ng-data 1.0.1", "synthetic": False}
LINE = re.compile(
    r'dialogId\("(?P<id>[^"]+)",\s*"(?P<who>\w+)",\s*"(?P<english>(?:[^"\\]|\\.)*)"\)\s*'
    r'dialogStr\("(?P<said>(?:[^"\\]|\\.)*)"\)'
)


def lines(game: Path, level: str, lang: str) -> Iterator[Utterance]:
    path = game / f"script/{level}/dialogs_{lang}.lua"
    for line in LINE.finditer(path.read_text("utf-8")) if path.is_file() else ():
        clip = game / f"sound/{level}/{lang}/{line['id']}.ogg"
        said, english = (re.sub(r"\\(.)", r"\1", line[key]).strip() for key in ("said", "english"))
        if clip.is_file() and re.search(r"\w\w", said):
            speaker = line["who"].removeprefix("font_")
            meta = {**META, "speaker": f"fillets-{lang}-{speaker}"}
            yield Utterance(
                f"fillets-{lang}-{level}-{line['id']}",
                Audio(str(clip.absolute()), text=said),
                lang,
                english or None,
                "en",
                meta,
            )


def main(game: Path, out: Path) -> None:
    levels = sorted(path.name for path in (game / "script").iterdir() if path.is_dir())
    test = set(seeded(0, "fillets").choice(levels, len(levels) // 10, replace=False))
    for folder, chosen in ((out, set(levels) - test), (out / "test", test)):
        with Conversations(folder) as conversations:
            for level in sorted(chosen):
                for lang in ("cs", "nl"):
                    conversations.add_each(lines(game, level, lang), readable)
        hours = conversations.duration_s / 3600
        print(f"{folder}: {conversations.kept} clips, {hours:.2f} h, {dict(conversations.dropped)}")


def readable(utterance: Utterance) -> Utterance:
    try:
        load(utterance.clip.audio)
    except ValueError:
        raise UnusableEntry("damaged") from None
    return utterance


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
