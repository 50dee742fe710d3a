"""Make data/text/chat.jsonl: text conversations whose answers the LLM itself wrote.

Training on its own answers keeps a model where it was (self-distillation). The questions are the
instructions of self-instruct and the prompts of Open-Assistant, both Apache-2.0.

    python data/build_chat.py TEXT_FOLDER data/text/chat.jsonl
"""

import gzip
import json
import sys
from pathlib import Path

from voicetextblender.chat import Conversation, assistant, to_line, user
from voicetextblender.config import ModelConfig, TrainedParts
from voicetextblender.model.generate import Decoding, generate
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.seeding import seeded

BATCH = 32
DECODING = Decoding(max_new_tokens=120, temperature=0.6, top_p=0.9)
LICENSE = "Apache-2.0"


def questions(folder: Path) -> list[str]:
    """Return short single-turn prompts, without duplicates, in a seeded order."""
    found: list[str] = []
    for line in (folder / "seed_tasks.jsonl").open(encoding="utf-8"):
        task = json.loads(line)
        found.append("\n".join(filter(None, [task["instruction"], task["instances"][0]["input"]])))
    for line in (folder / "user_oriented_instructions.jsonl").open(encoding="utf-8"):
        task = json.loads(line)
        found.append("\n".join(filter(None, [task["instruction"], task["instances"][0]["input"]])))
    with gzip.open(folder / "oasst_en_100_message.jsonl.gz", "rt", encoding="utf-8") as lines:
        found += [json.loads(line)["text"] for line in lines]
    found = [text.strip() for text in dict.fromkeys(found) if 3 <= len(text.split()) <= 60]
    return [found[n] for n in seeded("chat", 0).permutation(len(found))]


def main(folder: Path, out: Path) -> None:
    """Answer every question and keep the answers that came to an end."""
    settings = ModelConfig(train=TrainedParts(llm="frozen"))
    processor = SpeechLMProcessor.from_parts(settings)
    model = SpeechLM.from_parts(settings, processor.audio_token_id).eval()
    asked = [Conversation(f"chat-{n:04d}", (user(q),)) for n, q in enumerate(questions(folder))]
    with out.open("w", encoding="utf-8") as file:
        for first in range(0, len(asked), BATCH):
            batch = asked[first : first + BATCH]
            samples = [processor.encode(c, [], purpose="answer") for c in batch]
            answers, ended = [""] * len(batch), [False] * len(batch)
            for chunk in generate(model, processor, samples, DECODING):
                answers[chunk.row] += chunk.text
                ended[chunk.row] = chunk.finished == "stop"
            for conversation, answer, is_whole in zip(batch, answers, ended, strict=True):
                if is_whole and answer.strip():
                    turns = (*conversation.messages, assistant(answer.strip()))
                    meta = {"license": LICENSE, "writer": settings.llm}
                    file.write(to_line(Conversation(conversation.id, turns, "text", "en", meta)))
                    file.write("\n")
            print(f"{min(first + BATCH, len(asked))} of {len(asked)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
