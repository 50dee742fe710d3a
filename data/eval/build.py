"""Rebuild the sets of this folder: `python data/eval/build.py READ_ENGLISH COFFEE [LLM]`.

READ_ENGLISH is a folder of `transcripts.csv` and `clips/*.flac`; COFFEE is the `command-test.jsonl`
of `recipes/data/coffee.py`. `questions.jsonl` holds those of `candidates.tsv` (kind, question,
right answers) that the LLM (default: smollm2-135m) answers right when they are typed: what a model
that is built on it should also answer when it hears them.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from voicetextblender.audio import load, probe_duration, save
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.records import Records
from voicetextblender.eval.checks import check
from voicetextblender.text import transcribe_instruction

HERE = Path(__file__).parent
BATCH = 32
LONGEST = 48  # tokens of an answer


def candidates() -> Iterator[Conversation]:
    """Yield every question with its first right answer."""
    numbers: Counter[str] = Counter()
    for line in (HERE / "candidates.tsv").read_text("utf-8").splitlines():
        kind, question, right = line.split("\t")
        numbers[kind] += 1
        answers = right.split("|")
        yield Conversation(
            f"{kind}-{numbers[kind]:02d}",
            (user(question), assistant(answers[0])),
            "question",
            "en",
            {"kind": kind, "check": [{"name": "says", "any_of": answers}]},
        )


def build_questions(llm: str) -> None:
    """Keep the questions that the LLM answers right, and write what it said to all of them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from voicetextblender.model.parts import resolve

    folder = resolve(llm)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    items, kept = list(candidates()), []
    with (HERE / "questions.answers.tsv").open("w", encoding="utf-8") as file:
        for first in range(0, len(items), BATCH):
            batch = items[first : first + BATCH]
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": item.messages[0].parts[0].text}],
                    add_generation_prompt=True,
                    tokenize=False,
                )
                for item in batch
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True)
            ids = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
            answers = tokenizer.batch_decode(
                ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
            )
            for item, answer in zip(batch, answers, strict=True):
                is_right = check(item, answer) == 1.0
                kept += [item] * is_right
                row = item.id, "+-"[not is_right], item.messages[0].parts[0].text, answer
                print(*(str(cell).replace("\n", " ") for cell in row), sep="\t", file=file)
    write(HERE / "questions.jsonl", kept)
    print(f"{len(kept)} of {len(items)} questions are answered right when typed")


def build_read_english(source: Path) -> None:
    """Write the clips as Opus and ask for their transcripts."""
    items = []
    (HERE / "clips").mkdir(exist_ok=True)
    rows = (source / "transcripts.csv").read_text("utf-8").splitlines()
    texts = dict(row.split("|")[::2] for row in rows)
    rows = (HERE / "read-english.more.tsv").read_text("utf-8").splitlines()
    for id, text in (texts | dict(row.split("\t") for row in rows)).items():
        samples = load(source / "clips" / f"{id}.flac")
        save(HERE / "clips" / f"{id}.opus", samples)
        clip = Audio(f"clips/{id}.opus", duration=round(len(samples) / 16_000, 3), text=text)
        items.append(
            Conversation(
                id,
                (user(transcribe_instruction("en"), clip), assistant(text)),
                "asr",
                "en",
                {"speaker": "ljspeech", "license": "public domain", "source": "LJSpeech 1.1"},
            )
        )
    write(HERE / "read-english.jsonl", items)
    print(f"{len(items)} clips of read English")


def build_coffee(test: Path) -> None:
    """Copy the clips of the orders that are kept for testing."""
    (HERE / "clips").mkdir(exist_ok=True)
    records, items = Records(str(test)), []
    for place in range(len(records)):
        (clip,) = records[place].clips
        name = f"clips/{records[place].id}.opus"
        shutil.copy(clip.audio, HERE / name)
        duration_s = round(probe_duration(HERE / name), 3)
        items.append(records[place].with_clips([Audio(name, duration=duration_s)]))
    write(HERE / "coffee.jsonl", items)
    print(f"{len(items)} orders of coffee")


def write(path: Path, items: list[Conversation]) -> None:
    path.write_text("".join(to_line(item) + "\n" for item in items), encoding="utf-8")


if __name__ == "__main__":
    build_read_english(Path(sys.argv[1]))
    build_coffee(Path(sys.argv[2]))
    build_questions(sys.argv[3] if len(sys.argv) > 3 else "smollm2-135m")
