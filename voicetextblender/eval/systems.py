"""Systems: what answers the items, our model and what it is compared with.

`ours` hears the clips, as the model's own settings say: `direct`, or `captioned`, with its own
transcript of each behind it. `typed` is the same model, given what is said in them in writing.
`base` is the LLM alone (the voice off), given the same, and `llm` that LLM loaded afresh. `whisper`
is a speech recogniser with a decoder of its own, and `cascade` is that recogniser, then the same
LLM: what ours has to be better than.

Shapes: N tokens, V size of the vocabulary.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import torch
from torch.nn.functional import log_softmax

from voicetextblender.batch import IGNORE, Sample, collate
from voicetextblender.chat import Audio, Conversation, Text, assistant, user
from voicetextblender.data.records import load_clips
from voicetextblender.eval.predict import Measure, Measured, System, choices
from voicetextblender.eval.retention import divergence, perplexity, untouched_llm
from voicetextblender.eval.suite import EvalSet, question
from voicetextblender.model.decode import Decoder, build_decoder, is_lean
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.synth.check import load_recogniser
from voicetextblender.text import LANGUAGES, transcribe_instruction

CAPTION = 128
"""Most tokens of a caption."""

Rewrite = Callable[[Sequence[Conversation]], Sequence[Conversation]]
"""Gives conversations another form, such as clips as text."""


_ASKED = {
    "wer": ("ours", "whisper"),
    "perplexity": ("llm", "base", "ours"),
    "kl": ("ours",),
}


def systems(model: SpeechLM, processor: SpeechLMProcessor, asr: str) -> dict[str, System]:
    """Return every system by name; `asr` is loaded when it is first asked.

    Raises ValueError for a model in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode, with dropout; call model.eval() first")
    name, text = describe(model), f"{model.config.model.llm}, {_dtype(model)}"

    @cache
    def decoder(voice: bool) -> Decoder:
        return build_decoder(model, voice=voice)

    parts = (model, processor, decoder)
    captioned = _captioned(*parts)
    made = (
        _speech_system("ours", name, *parts, captioned if model.config.model.captions else list),
        _speech_system("direct", f"{name}, clips alone", *parts, list),
        _speech_system("captioned", f"{name}, captioned", *parts, captioned),
        _speech_system("typed", f"{name}, typed", *parts, _typed),
        _speech_system("base", text, *parts, _typed, voice=False),
        _speech_system("cascade", f"{asr} → {text}", *parts, _write_down(asr), voice=False),
        _whisper_system(asr),
        untouched_llm(model, processor),
    )
    return {system.name: system for system in made}


def asked_of(of: EvalSet) -> tuple[str, ...]:
    """Return the names of the systems that a set is asked of, where it does not say so itself."""
    if of.systems is not None:
        return of.systems
    if of.scorer in _ASKED:
        return _ASKED[of.scorer]
    return ("base", "ours") if of.speech == "none" else ("ours", "typed", "cascade", "base")


def describe(model: SpeechLM) -> str:
    """Return the names of a model's parts and a digest of all that is trained in it."""
    digest = hashlib.sha256()
    for parameters in model.trained_parts().values():
        for parameter in parameters:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    settings = model.config.model
    parts = f"{settings.encoder} + {settings.llm}, {_dtype(model)}"
    return f"{parts}, sha256 {digest.hexdigest()[:12]}"


def choice_log_probs(
    model: SpeechLM, processor: SpeechLMProcessor, items: Sequence[Conversation]
) -> list[list[float]]:
    """Return the log-probability of each of an item's choices as the whole of the last turn."""
    asked = [
        replace(question(item), messages=(*question(item).messages, assistant(choice)))
        for item in items
        for choice in choices(item)
    ]
    samples = [processor.encode(one, load_clips(one)) for one in asked]
    found = iter(log_probs(model, processor, samples))
    return [[next(found) for _ in choices(item)] for item in items]


def log_probs(
    model: SpeechLM, processor: SpeechLMProcessor, samples: Sequence[Sample]
) -> list[float]:
    """Return the log-probability of each conversation's answers, all read in one packed row."""
    with torch.inference_mode():
        batch = collate(samples, processor.num_mel_bins).to(model.device)
        audio = model.table.new_zeros(0, model.table.shape[1])
        if batch.clip_lens:
            audio, _ = model.embed_audio(batch.features, batch.clip_lens)
        embeds = model.embed(batch.input_ids, audio)
        hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens)[0]
        asked = batch.labels != IGNORE
        logits = model.project(hidden[asked])  # of the answers alone: V is large
        each = torch.zeros(len(batch.labels), device=logits.device)
        chosen = log_softmax(logits.float(), -1).gather(1, batch.labels[asked, None])
        each[asked] = chosen.squeeze(1)
        return [row.sum().item() for row in each.split(batch.seq_lens)]


def _speech_system(
    name: str,
    says: str,
    model: SpeechLM,
    processor: SpeechLMProcessor,
    decoder: Callable[[bool], Decoder],
    rewrite: Rewrite,
    voice: bool = True,
) -> System:
    """Return our model as a system, which reads what `rewrite` makes of the items."""
    mode = nullcontext if voice else model.voice_off
    how = ["greedy"]
    if voice and is_lean(model):
        how.append("LoRA merged")
    if name in ("ours", "direct", "captioned") and (weight := model.config.ctc_decoding):
        how.append(f"transcripts with {weight} CTC")
    if name == "captioned" or (name == "ours" and model.config.model.captions):
        how.append("clips captioned")

    def answer(asked: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        return _answers(model, processor, decoder(voice), rewrite(asked), max_new_tokens)

    def choose(items: Sequence[Conversation]) -> list[Measured]:
        with mode():
            found = choice_log_probs(model, processor, rewrite(items))
        likeliest = [choices(i)[row.index(max(row))] for i, row in zip(items, found, strict=True)]
        return list(map(Measured, found, likeliest))

    measures: dict[str, Measure] = {"choice": choose}
    if name in ("ours", "base"):
        measures["perplexity"] = lambda items: perplexity(model, processor, items, mode)
    if name == "ours":
        measures["kl"] = lambda items: divergence(model, processor, items)
    return System(name, says, ", ".join(how), answer, measures)


def _answers(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    decoder: Decoder,
    asked: Sequence[Conversation],
    max_new_tokens: int,
) -> list[str]:
    """Return the greedy answers to conversations; CTC has its part in transcripts."""
    samples = [processor.encode(c, load_clips(c), purpose="answer") for c in asked]
    weights = [model.config.ctc_decoding if is_transcription(c) else 0.0 for c in asked]
    decodings = [Decoding(max_new_tokens, ctc_weight=weight) for weight in weights]
    return answers(model, processor, samples, decodings, decoder)


def is_transcription(asked: Conversation) -> bool:
    """Return whether a conversation asks for what is said in one clip, in the paper's words."""
    text = asked.messages[-1].text.strip()
    return len(asked.clips) == 1 and text in map(transcribe_instruction, LANGUAGES)


def _whisper_system(part: str) -> System:
    def answer(asked: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        return [" ".join(heard) for heard in _heard(part, asked)]

    return System("whisper", part, "greedy, language given where known", answer)


def _heard(part: str, asked: Sequence[Conversation]) -> list[list[str]]:
    """Return what a recogniser hears in each of the conversations' clips."""
    clips = [(c.lang, samples) for c in asked for samples in load_clips(c)]
    heard = [""] * len(clips)
    for lang in dict.fromkeys(lang for lang, _ in clips):
        places = [place for place, (of, _) in enumerate(clips) if of == lang]
        texts = load_recogniser(part).recognise([clips[place][1] for place in places], lang)
        for place, text in zip(places, texts, strict=True):
            heard[place] = text
    found = iter(heard)
    return [[next(found) for _ in c.clips] for c in asked]


def _write_down(part: str) -> Rewrite:
    """Return what puts a recogniser's words in the place of the clips."""

    def rewrite(asked: Sequence[Conversation]) -> list[Conversation]:
        heard = _heard(part, asked)
        return [c.with_clips(map(Text, t)) for c, t in zip(asked, heard, strict=True)]

    return rewrite


def _captioned(
    model: SpeechLM, processor: SpeechLMProcessor, decoder: Callable[[bool], Decoder]
) -> Rewrite:
    """Return what has the model write down each clip first, and read that behind it."""

    def caption_of(of: Conversation, clip: Audio) -> Conversation:
        instruction = transcribe_instruction(of.lang if of.lang in LANGUAGES else "en")
        return Conversation(of.id, (user(instruction, clip),))

    def rewrite(asked: Sequence[Conversation]) -> list[Conversation]:
        others = [c for c in asked if not is_transcription(c)]
        clips = [caption_of(c, clip) for c in others for clip in c.clips]
        captions = iter(_answers(model, processor, decoder(True), clips, CAPTION) if clips else ())
        return [
            c if is_transcription(c) else c.captioned([next(captions) for _ in c.clips])
            for c in asked
        ]

    return rewrite


def _typed(asked: Sequence[Conversation]) -> list[Conversation]:
    return [conversation.typed() for conversation in asked]


def _dtype(model: SpeechLM) -> str:
    return str(model.dtype).removeprefix("torch.")
