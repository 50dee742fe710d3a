"""Writers: chats in, the next turn of each out; a local language model, or a service.

    smollm2-135m, hub id, folder    a model in this process, as `model.parts` finds it
    http://host/v1#MODEL            any service with /v1/chat/completions

Behind a user's turn a writer answers; at the beginning of a chat, or behind an answer, it writes
what the user says next. A local model does so from its bare chat template (Xu et al. 2024, Magpie),
so that it shows what it was trained to be asked.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel

from voicetextblender.chat import Conversation, Turn, system, user
from voicetextblender.model.parts import resolve
from voicetextblender.seeding import draw_seed, seeded
from voicetextblender.synth.remote import NoAnswer, is_url, parse_service, post

if TYPE_CHECKING:
    from torch import Generator, Tensor

_TOP_K = 64
_PER_BATCH = 100
_AT_ONCE = 8  # requests to a service
_NUM_ATTEMPTS = 3  # at JSON that is valid
_PLAY_USER = (
    "You play a person who is chatting with an AI assistant; the messages that you are sent are "
    "the assistant's. Write the person's next message and nothing else."
)

Chat = tuple[Turn, ...]
F = TypeVar("F", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a turn is chosen."""

    temperature: float = 0.7
    """0 takes the likeliest token."""
    top_p: float = 0.95
    max_tokens: int = 200
    """A turn that does not end within these has failed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A turn that was not written."""

    reason: str
    """A few words, the same for all of its kind."""
    why: str


class Writer(Protocol):
    """Anything that can continue a chat."""

    name: str

    def write(
        self,
        chats: Sequence[Chat],
        seeds: Sequence[int],
        how: Sampling = Sampling(),
        form: type[BaseModel] | None = None,
    ) -> list[str | Failed]:
        """Return the next turn of each chat; `form` is the JSON that is asked for, if any.

        Raises ValueError if the writer is not there at all.
        """
        ...


class LocalWriter:
    """A causal language model in this process; the same turns for the same chats and seeds."""

    def __init__(self, part: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from voicetextblender.prompt import Prompter

        self.name = part
        folder = resolve(part)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prompter = Prompter(self._tokenizer)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        torch.nn.Module.to(self._model.eval(), self._device)

    def write(
        self,
        chats: Sequence[Chat],
        seeds: Sequence[int],
        how: Sampling = Sampling(),
        form: type[BaseModel] | None = None,
    ) -> list[str | Failed]:
        """Return the next turn of each chat. `form` is left to the words of the chat."""
        turns: dict[int, str | Failed] = {}
        prompts: dict[int, list[int]] = {}
        for row, chat in enumerate(chats):
            try:
                prompts[row] = self._encode(chat)
            except ValueError as error:
                turns[row] = Failed("not able to be asked", str(error))
        # Prompts of like length stand together, so little is padded.
        rows = sorted(prompts, key=lambda row: (len(prompts[row]), row))
        for first in range(0, len(rows), _PER_BATCH):
            batch = rows[first : first + _PER_BATCH]
            texts = self._generate([prompts[r] for r in batch], [seeds[r] for r in batch], how)
            turns |= zip(batch, texts, strict=True)
        return [turns[row] for row in range(len(chats))]

    def _encode(self, chat: Chat) -> list[int]:
        conversation = Conversation("chat", chat)
        if chat and chat[-1].role == "user":
            return self._prompter.encode_for_answer(conversation).ids
        return self._prompter.encode_for_question(conversation).ids

    def _generate(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], how: Sampling
    ) -> list[str | Failed]:
        """Return a turn for each prompt; what has ended leaves the batch."""
        import torch
        from transformers import DynamicCache

        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long, device=self._device)
        is_real = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            is_real[row, width - len(prompt) :] = 1
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        written: list[list[int]] = [[] for _ in prompts]
        rows, stops = list(range(len(prompts))), self._prompter.stop_ids
        cache = DynamicCache(config=self._model.config)
        with torch.inference_mode():
            while rows and len(written[rows[0]]) < how.max_tokens:
                places = (is_real.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                logits = self._model(
                    ids,
                    attention_mask=is_real,
                    position_ids=places,
                    past_key_values=cache,
                    logits_to_keep=1,
                ).logits[:, -1]
                chosen = _drawn(logits, [draws[row] for row in rows], how)
                for row, token in zip(rows, chosen.tolist(), strict=True):
                    written[row].append(token)
                ids = chosen.unsqueeze(1)
                is_real = torch.nn.functional.pad(is_real, (0, 1), value=1)
                going = [n for n, row in enumerate(rows) if written[row][-1] not in stops]
                if len(going) < len(rows):
                    rows, ids, is_real = [rows[n] for n in going], ids[going], is_real[going]
                    cache.batch_select_indices(torch.tensor(going, dtype=torch.long))
        return [self._read(tokens) for tokens in written]

    def _read(self, tokens: list[int]) -> str | Failed:
        is_whole = tokens[-1] in self._prompter.stop_ids
        text = self._tokenizer.decode(tokens[:-1], skip_special_tokens=True).strip()
        return text if is_whole else Failed("longer than is allowed", text[:80])


class RemoteWriter:
    """A service with /v1/chat/completions, asked several chats at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._service = parse_service(name, "model")

    def write(
        self,
        chats: Sequence[Chat],
        seeds: Sequence[int],
        how: Sampling = Sampling(),
        form: type[BaseModel] | None = None,
    ) -> list[str | Failed]:
        """Return the next turn of each chat. Raises ValueError if not one of several comes."""
        failed: list[NoAnswer] = []

        def ask(chat: Chat, seed: int) -> str | Failed:
            try:
                return self._ask(chat, seed, how, form)
            except NoAnswer as error:
                failed.append(error)
                return Failed("without an answer", str(error))
            except ValueError as error:
                return Failed("refused by the service", str(error))

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            turns = list(threads.map(ask, chats, seeds))
        if len(failed) == len(chats) > 1:
            raise failed[0]
        return turns

    def _ask(
        self, chat: Chat, seed: int, how: Sampling, form: type[BaseModel] | None
    ) -> str | Failed:
        if not chat or chat[-1].role != "user":
            chat = _swapped(chat)
        asked: dict[str, object] = {
            "model": self._service.asked,
            "messages": [{"role": turn.role, "content": turn.text} for turn in chat],
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_tokens,
            "seed": seed,
        }
        if form:
            schema = {"name": form.__name__, "schema": form.model_json_schema(), "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        url = f"{self._service.base}/chat/completions"
        answer = post(url, json.dumps(asked).encode(), "application/json")
        try:
            choice = json.loads(answer)["choices"][0]
            text, finished = choice["message"]["content"].strip(), choice.get("finish_reason")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return Failed("answered with no chat completion", f"{url}: {answer[:80]!r}")
        return Failed("longer than is allowed", text[:80]) if finished == "length" else text


def write_json(
    writer: Writer,
    chats: Sequence[Chat],
    seeds: Sequence[int],
    form: type[F],
    how: Sampling = Sampling(),
) -> list[F | Failed]:
    """Return the next turn of each chat as a `form`; what is none is asked for again, twice."""
    read: dict[int, F | Failed] = {}
    for attempt in range(_NUM_ATTEMPTS):
        todo = [row for row in range(len(chats)) if not isinstance(read.get(row), form)]
        if not todo:
            break
        drawn = [draw_seed(seeded(seeds[row], attempt)) for row in todo]
        turns = writer.write([chats[row] for row in todo], drawn, how, form)
        read |= {row: _parsed(turn, form) for row, turn in zip(todo, turns, strict=True)}
    return [read[row] for row in range(len(chats))]


@cache
def load_writer(name: str) -> Writer:
    """Return a writer, loaded once per process. Raises ValueError if there is none of that name."""
    return RemoteWriter(name) if is_url(name) else LocalWriter(name)


def _drawn(scores: "Tensor", randoms: "Sequence[Generator]", how: Sampling) -> "Tensor":
    """Return (B,) tokens of (B, V) scores, each drawn by its row's own generator."""
    import torch

    if not how.temperature:
        return scores.argmax(-1)
    likely, ids = scores.float().topk(min(_TOP_K, scores.shape[1]))  # a sort of all is slow
    probs = (likely / how.temperature).softmax(-1).cpu()
    probs[probs.cumsum(-1) - probs >= how.top_p] = 0
    places = [torch.multinomial(p, 1, generator=r) for p, r in zip(probs, randoms, strict=True)]
    return ids.gather(1, torch.stack(places).to(ids.device)).squeeze(1)


def _parsed(turn: str | Failed, form: type[F]) -> F | Failed:
    """Read the first JSON object in a turn, whatever stands before and behind it."""
    if isinstance(turn, Failed):
        return turn
    try:
        found, _ = json.JSONDecoder().raw_decode(turn[turn.index("{") :])
        return form.model_validate(found)
    except ValueError:
        return Failed("answered with other JSON than asked for", turn[:160])


def _swapped(chat: Chat) -> Chat:
    """Let a model that only answers write the user's turn: the two change places."""
    begin = [system(_PLAY_USER), user("Hello! How can I help you?")]
    others = {"user": "assistant", "assistant": "user", "system": "system"}
    spoken = [turn for turn in chat if turn.role != "system"]
    return (*begin, *(replace(turn, role=others[turn.role]) for turn in spoken))
