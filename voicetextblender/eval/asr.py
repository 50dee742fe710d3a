"""Transcription: predictions first, one JSON line a clip; then scores, from the file alone.

The same clips are given to our model and to Whisper's own decoder. A run that was stopped goes on
behind its last prediction, unless the model, the decoding or the data changed.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter
from torch import nn

from voicetextblender.audio import probe_duration
from voicetextblender.chat import Conversation
from voicetextblender.data.records import Records, load_clips
from voicetextblender.eval.old_metrics import (
    ErrorCounts,
    bootstrap_interval,
    scored_with,
    total,
    utterance_character_errors,
    utterance_word_errors,
)
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import resolve
from voicetextblender.model.processing import SpeechLMProcessor

Transcribe = Callable[[Sequence[Conversation]], list[str]]
"""Gives the words of each conversation's clip; the conversations end with the user's turn."""

Report = Callable[[str, int, int], None]
"""Is told the set, the clips done and the clips in all."""


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A file of ASR conversations, and what a reader of its score must know."""

    name: str
    """Names its files and its row in reports, such as `phone-prompts`."""
    path: Path
    speech: Literal["real", "synthetic"]
    seen: bool = False
    """Whether the model was trained on these very clips."""
    limit: int | None = None
    """Clips to take, evenly spaced through the file; None takes all."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was heard in one clip: a line of the predictions file."""

    id: str
    source: str
    """Name of its set."""
    lang: str
    """`und` where it is not known."""
    audio: str
    """The clip's file, relative to the predictions file's folder."""
    start: float
    duration: float
    """Seconds."""
    reference: str
    made: str
    """Digest of the model and the decoding that made it."""
    hypothesis: str = ""
    seconds: float = 0.0
    """Time it took: its share of its batch's."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well some clips were transcribed; rates are fractions, not percent."""

    num_clips: int
    audio_s: float
    wer: float
    interval: tuple[float, float]
    """95 % bootstrap interval of `wer`."""
    cer: float
    words: ErrorCounts


@dataclass(frozen=True, slots=True)
class AsrResult:
    """The scores of one set, and how they were made."""

    speech: Literal["real", "synthetic"]
    seen: bool
    overall: Score
    by_lang: dict[str, Score]
    seconds: float
    """Time that transcription took."""
    model: str
    decoding: str
    scoring: str
    data_sha256: str


_RESULTS = TypeAdapter(dict[str, AsrResult])


def evaluate_asr(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    sets: Sequence[EvalSet],
    out: Path,
    *,
    max_new_tokens: int = 128,
    batch_size: int = 16,
    report: Report | None = None,
) -> dict[str, AsrResult]:
    """Transcribe sets greedily with our model; write `out/SET.jsonl`, and scores to `out.json`.

    Raises ValueError for a model in training mode or a set that will not do.
    """
    if model.training:
        raise ValueError("the model is in training mode, with dropout; call model.eval() first")

    def transcribe(batch: Sequence[Conversation]) -> list[str]:
        samples = [processor.encode(c, load_clips(c), purpose="answer") for c in batch]
        return answers(model, processor, samples, Decoding(max_new_tokens))

    name, decoding = describe(model), f"greedy, at most {max_new_tokens} tokens"
    return transcribe_sets(transcribe, sets, out, name, decoding, batch_size, report)


def whisper_asr(
    sets: Sequence[EvalSet],
    out: Path,
    *,
    part: str = "whisper-base",
    max_new_tokens: int = 128,
    batch_size: int = 16,
    report: Report | None = None,
) -> dict[str, AsrResult]:
    """Do as `evaluate_asr` with Whisper's own decoder, which is told the language.

    Raises ValueError for a part or a set that will not do.
    """
    from transformers import (
        AutoTokenizer,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    folder = resolve(part)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    # Its prompt is four tokens: start, language, task, no time stamps.
    whisper.generation_config.update(max_length=4 + max_new_tokens, do_sample=False, num_beams=1)
    nn.Module.to(whisper.eval(), device)

    @torch.inference_mode()
    def transcribe(batch: Sequence[Conversation]) -> list[str]:
        inputs = extractor(
            [load_clips(c)[0] for c in batch],
            sampling_rate=extractor.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(device, torch.bfloat16)
        ids = whisper.generate(
            inputs.input_features,
            attention_mask=inputs.attention_mask,
            language=[_language(c) for c in batch],
            task="transcribe",
        )
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    decoding = f"greedy, at most {max_new_tokens} tokens, language given, bfloat16"
    return transcribe_sets(transcribe, sets, out, folder.name, decoding, batch_size, report)


def transcribe_sets(
    transcribe: Transcribe,
    sets: Sequence[EvalSet],
    out: Path,
    model: str,
    decoding: str,
    batch_size: int = 16,
    report: Report | None = None,
) -> dict[str, AsrResult]:
    """Transcribe sets with any function; write `out/SET.jsonl`, and scores to `out.json`.

    `model` and `decoding` say what the function is. Raises ValueError for a set that will not do.
    """
    out.mkdir(parents=True, exist_ok=True)
    made = hashlib.sha256(f"{model}\n{decoding}".encode()).hexdigest()[:12]
    results = {}
    for of in sets:
        path = out / f"{of.name}.jsonl"
        digest = hashlib.sha256(of.path.read_bytes()).hexdigest()
        wanted = {
            _asked(c, of.name, out, made): replace(c, messages=c.messages[:-1]) for c in _chosen(of)
        }
        done = {_question(p): p for p in read_predictions(path) if _question(p) in wanted}
        _write(path, done.values())
        todo = [question for question in wanted if question not in done]
        with path.open("a", encoding="utf-8") as file:
            for begin in range(0, len(todo), batch_size):
                questions = todo[begin : begin + batch_size]
                started = time.perf_counter()
                texts = transcribe([wanted[question] for question in questions])
                seconds = (time.perf_counter() - started) / len(questions)
                for question, text in zip(questions, texts, strict=True):
                    done[question] = replace(question, hypothesis=text, seconds=seconds)
                    print(_line(done[question]), file=file)
                file.flush()
                if report is not None:
                    report(of.name, len(done), len(wanted))
        in_order = [done[question] for question in wanted]
        _write(path, in_order)
        results[of.name] = score(in_order, of.speech, of.seen, model, decoding, digest)
    (out.parent / f"{out.name}.json").write_bytes(_RESULTS.dump_json(results, indent=1))
    return results


def score(
    predictions: Sequence[Prediction],
    speech: Literal["real", "synthetic"],
    seen: bool,
    model: str,
    decoding: str,
    data_sha256: str,
) -> AsrResult:
    """Score one set's predictions, together and by language.

    Raises ValueError for a reference that has no words.
    """
    langs = sorted({p.lang for p in predictions})
    return AsrResult(
        speech=speech,
        seen=seen,
        overall=_score(predictions),
        by_lang={lang: _score([p for p in predictions if p.lang == lang]) for lang in langs},
        seconds=sum(p.seconds for p in predictions),
        model=model,
        decoding=decoding,
        scoring=scored_with(),
        data_sha256=data_sha256,
    )


def read_predictions(path: Path) -> list[Prediction]:
    """Return a file's predictions; a last line that a killed run left unfinished is dropped."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [Prediction(**json.loads(line)) for line in lines]


def read_results(path: Path) -> dict[str, AsrResult]:
    """Return the scores that an evaluation wrote, by set; none if there is no such file."""
    return _RESULTS.validate_json(path.read_bytes()) if path.is_file() else {}


def describe(model: SpeechLM) -> str:
    """Return the names of a model's parts and a digest of all that is trained in it."""
    digest = hashlib.sha256()
    for parameters in model.trained_parts().values():
        for parameter in parameters:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    settings = model.config.model
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{settings.encoder} + {settings.llm}, {dtype}, sha256 {digest.hexdigest()[:12]}"


def _chosen(of: EvalSet) -> list[Conversation]:
    """Return a set's conversations.

    Raises ValueError for what is no ASR conversation, and for an id that is there twice.
    """
    records = Records(str(of.path))
    number = min(len(records), of.limit or len(records))
    chosen: dict[str, Conversation] = {}
    for place in range(number):
        conversation = records[place * len(records) // number]
        where = f"{of.path}: conversation '{conversation.id}'"
        if len(conversation.clips) != 1 or conversation.messages[-1].role != "assistant":
            raise ValueError(
                f"{where} has {len(conversation.clips)} clips and ends with a turn of the "
                f"{conversation.messages[-1].role}; transcription needs one clip, then the answer"
            )
        if conversation.id in chosen:
            raise ValueError(f"{where} is there twice; give each conversation its own id")
        chosen[conversation.id] = conversation
    return list(chosen.values())


def _asked(conversation: Conversation, source: str, out: Path, made: str) -> Prediction:
    """Return the prediction of a conversation before it is heard."""
    (clip,) = conversation.clips
    return Prediction(
        id=conversation.id,
        source=source,
        lang=conversation.lang or "und",
        audio=os.path.relpath(clip.audio, out),
        start=clip.start,
        duration=clip.duration or probe_duration(clip.audio) - clip.start,
        reference=" ".join(p.text or "" for p in conversation.messages[-1].parts),
        made=made,
    )


def _question(prediction: Prediction) -> Prediction:
    """Return what was asked, without the answer."""
    return replace(prediction, hypothesis="", seconds=0.0)


def _score(predictions: Sequence[Prediction]) -> Score:
    references = [p.reference for p in predictions]
    hypotheses = [p.hypothesis for p in predictions]
    counts = utterance_word_errors(references, hypotheses)
    words = total(counts)
    return Score(
        num_clips=len(predictions),
        audio_s=sum(p.duration for p in predictions),
        wer=words.rate,
        interval=bootstrap_interval(counts),
        cer=total(utterance_character_errors(references, hypotheses)).rate,
        words=words,
    )


def _line(prediction: Prediction) -> str:
    return json.dumps(asdict(prediction), ensure_ascii=False)


def _write(path: Path, predictions: Iterable[Prediction]) -> None:
    path.write_text("".join(_line(p) + "\n" for p in predictions), encoding="utf-8")


def _language(conversation: Conversation) -> str:
    if conversation.lang is None:
        raise ValueError(
            f"conversation '{conversation.id}' has no 'lang', which Whisper's decoder is told; "
            f"add it, such as 'en'"
        )
    return conversation.lang
