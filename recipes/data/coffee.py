"""Spoken coffee orders as conversations: `python recipes/data/coffee.py SOURCE OUT`.

SOURCE holds `orders.jsonl` and `clips/` (Picovoice's speech-to-intent-benchmark: more than 50
people, real speech). OUT gets `command-train.jsonl` and `command-test.jsonl`, a fifth of the
orders: audio in, intent and slots as JSON out; and `asr-train.jsonl`, the training clips as
Whisper-base hears them. Nobody wrote these words down, so they are marked `meta.pseudo`, and the
test clips have none.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.progress import progress_bar
from voicetextblender.seeding import seeded
from voicetextblender.synth.check import load_recogniser
from voicetextblender.text import transcribe_instruction

ASK = (
    "Write this order as JSON with the key intent and, as far as they are said, coffeeDrink, size, "
    "numberOfShots, roast, milkAmount and sugarAmount."
)
META = {
    "license": "Apache-2.0",
    "source": "Picovoice speech-to-intent-benchmark 47b1ca63",
    "synthetic": False,
}
BATCH = 16  # clips that are recognised together


def main(source: Path, out: Path) -> None:
    lines = (source / "orders.jsonl").read_text("utf-8").splitlines()
    orders = {Path(order["audio"]).stem: order for order in map(json.loads, lines)}
    keys = list(seeded(0, "coffee").permutation(sorted(orders)))
    test = set(keys[: len(keys) // 5])
    heard = transcripts({key: source / orders[key]["audio"] for key in keys if key not in test})
    with Conversations(out) as conversations:
        for key in sorted(orders):
            text = heard.get(key)
            clip = Audio(str((source / orders[key]["audio"]).absolute()), text=text)
            meta = META if text is None else {**META, "pseudo": "whisper-base"}
            slots = {name: value.strip() for name, value in orders[key]["slots"].items()}
            answer = json.dumps({"intent": orders[key]["intent"], **slots})
            command = Conversation(
                f"coffee-{key}", (user(ASK, clip), assistant(answer)), "command", "en", meta
            )
            split = "test" if key in test else "train"
            conversations.add_conversation(command, f"command-{split}")
            if text:
                turns = (user(transcribe_instruction("en"), clip), assistant(text))
                asr = Conversation(f"coffee-asr-{key}", turns, "asr", "en", meta)
                conversations.add_conversation(asr, "asr-train")
    print(f"{len(orders)} orders, {len(test)} of them for testing, in {out}")


def transcripts(paths: Mapping[str, Path | str], lang: str = "en") -> dict[str, str]:
    """Return what Whisper-base hears."""
    recogniser, keys = load_recogniser("whisper-base"), sorted(paths)
    heard: dict[str, str] = {}
    with progress_bar("listening") as advance:
        for first in range(0, len(keys), BATCH):
            batch = keys[first : first + BATCH]
            texts = recogniser.recognise([load(paths[key]) for key in batch], lang)
            heard |= dict(zip(batch, texts, strict=True))
            advance((first + len(batch)) / len(keys))
    return heard


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
