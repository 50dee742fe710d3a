"""A corpus of real sound files and text, small enough to train on in a second."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.config import ModelConfig, Recipe

WORDS = ["yes", "no", "hello", "stop", "a table", "the answer"]


@pytest.fixture(scope="session")
def write_corpus(sound) -> Callable[[Path], Path]:
    """Fill a folder with asr.jsonl, its clips, and text.jsonl."""

    def write(folder: Path) -> Path:
        (folder / "clips").mkdir()
        spoken, typed = [], []
        for n, words in enumerate(WORDS):
            audio.save(folder / f"clips/{n}.wav", sound(0.4 + 0.1 * n, n))
            clip = Audio(f"clips/{n}.wav", text=words)
            spoken.append(Conversation(f"asr-{n}", (user("Say:", clip), assistant(words)), "asr"))
            typed.append(Conversation(f"text-{n}", (user(words), assistant(words.upper()))))
        for name, talks in {"asr": spoken, "text": typed}.items():
            (folder / f"{name}.jsonl").write_text("\n".join(map(to_line, talks)))
        return folder

    return write


@pytest.fixture
def corpus(tmp_path: Path, write_corpus) -> Path:
    """A folder with asr.jsonl, its clips, and text.jsonl."""
    return write_corpus(tmp_path)


@pytest.fixture(scope="session")
def recipe_for(tiny: Callable[..., ModelConfig]) -> Callable[[Path], Callable[..., Recipe]]:
    """Give the maker of recipes over a corpus."""

    def of(corpus: Path) -> Callable[..., Recipe]:
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

    return of


@pytest.fixture
def recipe(corpus: Path, recipe_for) -> Callable[..., Recipe]:
    """A tiny recipe over the corpus: `recipe(steps=8)`, any key of `train`."""
    return recipe_for(corpus)


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
