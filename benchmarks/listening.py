"""What is said and what is heard: `python benchmarks/listening.py [--number 20] PATH…`.

Draws clips of conversations by lot, has Whisper-base write down each, and prints those of which it
hears other words than are written, the worst first: a list to listen to with `vtb data view`.
"""

import argparse

from voicetextblender.data.records import Records, load_clips
from voicetextblender.progress import progress_bar
from voicetextblender.seeding import seeded
from voicetextblender.synth.check import load_recogniser, word_error

BATCH = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    drawn = []
    sources = [Records(path) for path in asked.paths]
    places = [(n, place) for n, source in enumerate(sources) for place in range(len(source))]
    for row in seeded(asked.seed, "listening").permutation(len(places)).tolist():
        source, place = places[row]
        conversation = sources[source][place]
        clips = zip(conversation.clips, load_clips(conversation), strict=True)
        drawn += [(conversation, *clip) for clip in clips if clip[0].text]
        if len(drawn) >= asked.number:
            break
    drawn, recogniser, heard = drawn[: asked.number], load_recogniser("whisper-base"), []
    with progress_bar("listening") as advance:
        for first in range(0, len(drawn), BATCH):
            batch = [samples for _, _, samples in drawn[first : first + BATCH]]
            heard += recogniser.recognise(batch, "en")
            advance(len(heard) / len(drawn))
    rows = [
        (word_error(clip.text or "", words), conversation, clip.text, words)
        for (conversation, clip, _), words in zip(drawn, heard, strict=True)
    ]
    for wrong, conversation, text, words in sorted(rows, key=lambda row: -row[0]):
        meta = conversation.meta
        print(f"{wrong:4.0%} {conversation.id} {meta.get('voice')} {meta.get('conditions', '')}")
        print(f"     {text}\n     {words}")
    print(f"{sum(wrong == 0 for wrong, *_ in rows)} of {len(rows)} are heard as they are written")


if __name__ == "__main__":
    main()
