"""Actors' English and Spanish, pseudo-labelled: `python recipes/data/drascula.py GAMES OUT`.

GAMES is the folder `scummvm/drascula` with `en` and `es`, of Debian's `drascula` and
`drascula-spanish`, an adventure game of 1996: some 780 lines, each in both languages, 11 kHz, which
`heard.py` labels. The game may be given away and changed, not sold; clips stay here. OUT gets
`LANG/asr-train.jsonl` and, as a line has the same name in both, `ast-es-en.jsonl`.
"""

import sys
from pathlib import Path

from heard import heard_lines

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.text import translate_instruction

META = {"license": "Drascula-License", "source": "Debian drascula 1.0+ds4"}


def main(games: Path, out: Path) -> None:
    kept = {}
    for lang in ("en", "es"):
        files = sorted((games / lang).glob("*.ALS"))
        lines = ((file.stem.lower(), file.read_bytes()) for file in files)
        kept[lang] = heard_lines(lines, f"drascula-{lang}", lang, META, out / lang)
    both = sorted(kept["en"].keys() & kept["es"].keys())
    told = {**META, "synthetic": False, "pseudo": "whisper-base", "target_lang": "en"}
    with Conversations(out) as conversations:
        for key in both:
            ask = translate_instruction("es", "en")
            turns = (user(ask, kept["es"][key]), assistant(kept["en"][key].text or ""))
            conversation = Conversation(f"drascula-es-en-{key}", turns, "ast", "es", told)
            conversations.add_conversation(conversation, "ast-es-en")
    print(f"{len(both)} translations")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
