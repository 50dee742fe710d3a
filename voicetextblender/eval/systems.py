"""Systems: what answers the items, our model and what it is compared with.

`ours` hears the clips as it is served: they are written down by the piece in which somebody speaks,
and captioned if the model's settings say so. `direct` hears them alone, `captioned` with its own
transcript of each behind it. `typed` is the same model, given what is said in them in writing.
`base` is the LLM alone (the voice off), given the same, and `llm` that LLM loaded afresh. `whisper`
is a speech recogniser with a decoder of its own, and `cascade` is that recogniser, then the same
LLM: what ours has to be better than.

Shapes: N tokens, V size of the vocabulary.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
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
from voicetextblender.model.decode import build_decoder, is_lean
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.speech import MARGIN_S, find_speech
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
    ours = _Ours(model, processor)
    says = [f"pieces with speech and {MARGIN_S} s around it"]
    put: Rewrite = list
    if model.config.model.captions:
        says.append("clips captioned")
        put = ours.captioned
    made = (
        ours.system("ours", ", ".join((name, *says)), put, listens=True),
        ours.system("direct", name, list),
        ours.system("captioned", f"{name}, clips captioned", ours.captioned),
        ours.system("typed", f"{name}, typed", _typed),
        ours.system("base", text, _typed, voice=False),
        ours.system("cascade", f"{asr} → {text}", _write_down(asr), voice=False),
        _whisper_system(asr),
        untouched_llm(model, processor),
    )
    return {system.name: system for system in made}


def asked_of(of: EvalSet, only: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the names of the systems that a set is asked of, where it does not say so itself.

    Of those, `only` some; `direct` and `captioned`, if they are among these, wherever `ours` is.
    """
    if of.systems is not None:
        names = of.systems
    elif of.scorer in _ASKED:
        names = _ASKED[of.scorer]
    elif of.speech == "none":
        names = ("base", "ours")
    else:
        names = ("ours", "typed", "cascade", "base")
    if only is None:
        return names
    variants = ("direct", "captioned") if "ours" in names and of.speech != "none" else ()
    return tuple(name for name in (*names, *variants) if name in only)


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


class _Ours:
    """Our model: what the systems that it is are made of."""

    def __init__(self, model: SpeechLM, processor: SpeechLMProcessor) -> None:
        self.model = model
        self.processor = processor
        self.decoder = cache(lambda voice: build_decoder(model, voice=voice))

    def system(
        self, name: str, says: str, rewrite: Rewrite, *, voice: bool = True, listens: bool = False
    ) -> System:
        """Return the model as a system that reads what `rewrite` makes of the items.

        If it `listens`, it is as it is served: clips are written down by the piece in which
        somebody speaks.
        """
        model, processor = self.model, self.processor
        mode = nullcontext if voice else model.voice_off
        how = ["greedy"]
        if voice and is_lean(model):
            how.append("LoRA merged")
        if voice and (weight := model.config.ctc_decoding):
            how.append(f"transcripts with {weight} CTC")

        def answer(asked: Sequence[Conversation], max_new_tokens: int) -> list[str]:
            return self.answers(rewrite(asked), max_new_tokens, voice, listens)

        def choose(items: Sequence[Conversation]) -> list[Measured]:
            with mode():
                found = choice_log_probs(model, processor, rewrite(items))
            best = [choices(i)[row.index(max(row))] for i, row in zip(items, found, strict=True)]
            return list(map(Measured, found, best))

        measures: dict[str, Measure] = {"choice": choose}
        if name in ("ours", "base"):
            measures["perplexity"] = lambda items: perplexity(model, processor, items, mode)
        if name == "ours":
            measures["kl"] = lambda items: divergence(model, processor, items)
        return System(name, says, ", ".join(how), answer, measures)

    def captioned(self, asked: Sequence[Conversation]) -> list[Conversation]:
        """Write down each clip, but of what asks for a transcript, and put that behind it."""

        def transcript(of: Conversation, clip: Audio) -> Conversation:
            lang = of.lang if of.lang in LANGUAGES else "en"
            return Conversation(of.id, (user(transcribe_instruction(lang), clip),))

        others = [c for c in asked if not is_transcription(c)]
        clips = [transcript(c, clip) for c in others for clip in c.clips]
        captions = iter(self.answers(clips, CAPTION, voice=True, listens=True))
        return [
            c if is_transcription(c) else c.captioned([next(captions) for _ in c.clips])
            for c in asked
        ]

    def answers(
        self, asked: Sequence[Conversation], max_new_tokens: int, voice: bool, listens: bool
    ) -> list[str]:
        """Return the greedy answers; CTC has its part in transcripts, which are made piecewise."""
        samples, decodings, places = [], [], []
        for place, one in enumerate(asked):
            clips, writes = load_clips(one), is_transcription(one)
            weight = self.model.config.ctc_decoding if writes else 0.0
            pieces = [[p.samples] for p in find_speech(clips)] if listens and writes else [clips]
            for own in pieces:
                samples.append(self.processor.encode(one, own, purpose="answer"))
                decodings.append(Decoding(max_new_tokens, ctc_weight=weight))
                places.append(place)
        found = answers(self.model, self.processor, samples, decodings, self.decoder(voice))
        texts: list[list[str]] = [[] for _ in asked]
        for place, text in zip(places, found, strict=True):
            texts[place].append(text)
        return list(map(" ".join, texts))


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


def _typed(asked: Sequence[Conversation]) -> list[Conversation]:
    return [conversation.typed() for conversation in asked]


def _dtype(model: SpeechLM) -> str:
    return str(model.dtype).removeprefix("torch.")
