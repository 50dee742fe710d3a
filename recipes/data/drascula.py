"""Actors' English and Spanish, pseudo-labelled: `python recipes/data/drascula.py GAMES OUT`.

GAMES is the folder `scummvm/drascula` with `en` and `es`, of Debian's `drascula` and
`drascula-spanish`, an adventure game of 1996: some 780 lines, each in both languages, 11 kHz, which
`heard.py` labels. The game may be given away and changed, not sold; clips stay here. OUT gets
`LANG/asr-train.jsonl` and, as a line has the same name in both, `ast-es-en.jsonl`.
"""

import sys
from pathlib import Path

from heard import heard_lines, joined, speech

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.text import translate_instruction

META = {"license": "Drascula-License", "source": "Debian drascula 1.0+ds4"}


def main(games: Path, out: Path) -> None:
    spoken = {
        lang: speech({f.stem.lower(): f.read_bytes() for f in sorted((games / lang).glob("*.ALS"))})
        for lang in ("en", "es")
    }
    both = [key for key in spoken["en"] if key in spoken["es"]]
    runs = joined({key: max(len(lines[key]) for lines in spoken.values()) for key in both})
    kept = {
        lang: heard_lines(lines, runs, lang, META, out / lang) for lang, lines in spoken.items()
    }
    told = {**META, "synthetic": False, "pseudo": "whisper-base", "target_lang": "en"}
    with Conversations(out) as conversations:
        for key in sorted(kept["en"].keys() & kept["es"].keys()):
            ask = translate_instruction("es", "en")
            turns = (user(ask, kept["es"][key]), assistant(kept["en"][key].text or ""))
            conversation = Conversation(f"drascula-es-en-{key}", turns, "ast", "es", told)
            conversations.add_conversation(conversation, "ast-es-en")
    print(f"{conversations.kept} translations")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
