"""Judges: open answers are judged by a language model, correct or not and how redundant.

The measures are the paper's: correctness 0 or 1, where copying the context is 0 too, and redundancy
from 1 to 10. The prompt is pinned, and its digest stands with every score. Verdicts are kept, so
scoring again asks nobody.

    http://host/v1#MODEL       any OpenAI-compatible service; asked for JSON, up to three times
    smollm2-135m, folder       a model in this process: its likeliest digit, which always parses
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Protocol

import torch
from pydantic import BaseModel, Field
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from voicetextblender.chat import Conversation, user
from voicetextblender.model.parts import resolve
from voicetextblender.prompt import Prompter
from voicetextblender.synth.remote import is_url
from voicetextblender.synth.writers import Sampling, load_writer, write_json

PROMPT = """You judge an answer to a question.

Question: {question}

Right answer: {reference}

Given answer: {answer}

{asked}"""
CORRECT = (
    "Is the given answer correct? It is if it says what the right answer says, in whatever words. "
    "It is not if it says something else, or only copies the question."
)
REDUNDANT = (
    "How redundant is the given answer, from 1 (nothing but the answer) to 10 (mostly words that "
    "were not asked for)?"
)
_BINARY = " Write only 1 for correct or 0 for incorrect."
_DIGIT = " Write only a number."
_AS_JSON = ' Write JSON: {"correct": 0 or 1, "redundancy": 1 to 10}'
DIGEST = hashlib.sha256(
    "".join((PROMPT, CORRECT, REDUNDANT, _BINARY, _DIGIT, _AS_JSON)).encode()
).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged."""

    question: str
    reference: str
    answer: str


class Verdict(BaseModel):
    """What a judge says of an answer."""

    correct: Annotated[int, Field(ge=0, le=1)]
    redundancy: Annotated[int, Field(ge=1, le=10)]


class Judge(Protocol):
    """Anything that can judge answers."""

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Return a verdict on each case; None where the judge said nothing that can be read."""
        ...


class LocalJudge:
    """A causal language model in this process: the likeliest of the allowed digits."""

    def __init__(self, part: str) -> None:
        folder = resolve(part)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prompter = Prompter(tokenizer)
        self._digits = [tokenizer(str(n), add_special_tokens=False).input_ids for n in range(10)]
        if any(len(digit) != 1 for digit in self._digits):
            raise ValueError(f"judge '{part}': its digits are not single tokens; use another")
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._llm = nn.Module.to(llm.eval(), self._device)

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Return a verdict on each case; redundancy is 9 at most, the longest digit there is."""
        return [
            Verdict(
                correct=self._digit(_prompt(case, CORRECT + _BINARY), range(2)),
                redundancy=self._digit(_prompt(case, REDUNDANT + _DIGIT), range(1, 10)),
            )
            for case in cases
        ]

    @torch.inference_mode()
    def _digit(self, prompt: str, allowed: range) -> int:
        ids = self._prompter.encode_for_answer(Conversation("case", (user(prompt),))).ids
        logits = self._llm(torch.tensor([ids], device=self._device)).logits[0, -1]
        likely = logits[[self._digits[n][0] for n in allowed]]
        return allowed[int(likely.argmax())]


class RemoteJudge:
    """A service with /v1/chat/completions, greedy."""

    def __init__(self, name: str) -> None:
        self._writer = load_writer(name)

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Return a verdict on each case. Raises ValueError if the service is not there."""
        chats = [(user(_prompt(case, f"{CORRECT} {REDUNDANT}{_AS_JSON}")),) for case in cases]
        greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=100)
        found = write_json(self._writer, chats, [0] * len(chats), Verdict, greedy)
        return [one if isinstance(one, Verdict) else None for one in found]


@cache
def load_judge(name: str) -> Judge:
    """Return a judge, loaded once per process. Raises ValueError if there is none of that name."""
    return RemoteJudge(name) if is_url(name) else LocalJudge(name)


def verdicts(name: str, cases: Sequence[Case], kept: Path | None) -> list[Verdict | None]:
    """Return a judge's verdicts, those that were kept in the folder first; keep the new ones.

    Raises ValueError for a judge that is not there, or of whom not one verdict can be read.
    """
    path = None if kept is None else kept / f"{_digest(name, DIGEST)}.jsonl"
    known: dict[str, Verdict] = {}
    if path is not None and path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known[record.pop("case")] = Verdict(**record)
    keys = [_digest(*asdict(case).values()) for case in cases]
    todo = {key: case for key, case in zip(keys, cases, strict=True) if key not in known}
    if todo:
        found = load_judge(name).judge(list(todo.values()))
        new = {key: one for key, one in zip(todo, found, strict=True) if one is not None}
        known |= new
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                for key, one in new.items():
                    file.write(json.dumps({"case": key, **one.model_dump()}) + "\n")
    if cases and not any(key in known for key in keys):
        raise ValueError(
            f"judge '{name}' said nothing that can be read of {len(cases)} answers; "
            f'it must write JSON such as {{"correct": 1, "redundancy": 2}}'
        )
    return [known.get(key) for key in keys]


def _prompt(case: Case, asked: str) -> str:
    return PROMPT.format(**asdict(case), asked=asked)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
