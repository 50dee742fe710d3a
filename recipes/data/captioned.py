"""Conversations with captions: `python recipes/data/captioned.py MODEL OUT NUMBER FILES…`.

MODEL, a folder, writes the clips of NUMBER conversations of FILES down, as it does when it is
served, and OUT gets them with those words, right or wrong,
below each clip: to learn to read a caption and to listen nevertheless.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from voicetextblender.chat import Conversation
from voicetextblender.cli.common import load_model
from voicetextblender.data.records import Records, load_clips, spread, write_lines
from voicetextblender.progress import progress_bar
from voicetextblender.serve.captions import Captions
from voicetextblender.serve.engine import Engine

AT_ONCE = 16  # conversations


def main(model: Path, out: Path, number: str, *patterns: str) -> None:
    captions = Captions(Engine(*load_model(model)))

    def captioned(conversation: Conversation) -> Conversation:
        words = [captions.of(clip, conversation.lang) for clip in load_clips(conversation)]
        return replace(conversation.captioned(words), id=f"{conversation.id}-captioned")

    sources = [Records(str(Path(pattern).absolute())) for pattern in patterns]
    chosen = [
        source[place]
        for source in sources
        for place in spread(len(source), int(number) // len(sources))
    ]
    made = []
    with ThreadPoolExecutor(AT_ONCE) as pool, progress_bar("listening") as advance:
        for conversation in pool.map(captioned, (c for c in chosen if c.clips)):
            made.append(conversation)
            advance(len(made) / len(chosen))
    write_lines(out, made)
    print(f"{out}: {len(made)} conversations")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
