"""A corpus of real sound files and text, small enough to train on in a second."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.config import ModelConfig, Recipe

WORDS = ["yes", "no", "hello", "stop", "a table", "the answer"]


@pytest.fixture
def corpus(tmp_path: Path, sound) -> Path:
    """A folder with asr.jsonl, its clips, and text.jsonl."""
    (tmp_path / "clips").mkdir()
    spoken, typed = [], []
    for n, words in enumerate(WORDS):
        audio.save(tmp_path / f"clips/{n}.wav", sound(0.4 + 0.1 * n, n))
        clip = Audio(f"clips/{n}.wav", text=words)
        spoken.append(Conversation(f"asr-{n}", (user("Say:", clip), assistant(words)), "asr"))
        typed.append(Conversation(f"text-{n}", (user(words), assistant(words.upper()))))
    for name, talks in {"asr": spoken, "text": typed}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(to_line, talks)))
    return tmp_path


@pytest.fixture
def recipe(corpus: Path, tiny: Callable[..., ModelConfig]) -> Callable[..., Recipe]:
    """A tiny recipe over the corpus: `recipe(steps=8)`, any key of `train`."""

    def build(run: str = "run", model: dict | None = None, **train: object) -> Recipe:
        settings = {
            "steps": 6,
            "warmup": 2,
            "tokens_per_batch": 300,
            "precision": "fp32",
            "log_every": 1,
            "save_every": 2,
            "ctc_negatives": 16,
            "lr": {"adapter": 1e-2, "lora": 1e-2, "encoder": 1e-3},
        }
        parts = tiny(**(model or {})).model_dump()
        parts["adapter"]["dropout"] = 0.1
        return Recipe.model_validate(
            {
                "run": str(corpus / run),
                "model": parts,
                "blend": [
                    {"name": name, "path": str(corpus / f"{name}.jsonl"), "weight": weight}
                    for name, weight in (("asr", 2), ("text", 1))
                ],
                "train": settings | train,
            }
        )

    return build


@pytest.fixture
def first_line(corpus: Path) -> Callable[..., None]:
    """Change the first conversation of asr.jsonl, as JSON, or write another line for it."""

    def change(edit: Callable[[dict], None] | str) -> None:
        path = corpus / "asr.jsonl"
        line, *others = path.read_text().splitlines()
        if callable(edit):
            record = json.loads(line)
            edit(record)
            edit = json.dumps(record)
        path.write_text("\n".join([edit, *others]))

    return change
