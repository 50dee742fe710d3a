"""The doctor: looks at real examples, the model and one step before a run is paid for.

Each finding says what was looked for, what was found, and, if that is bad, what to do about it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.batch import IGNORE, Batch, Sample, collate
from voicetextblender.chat import Audio, Conversation, Text
from voicetextblender.config import Recipe
from voicetextblender.data.records import load_clips, spread
from voicetextblender.data.sources import Source
from voicetextblender.model.attention import PACKED
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import resolve
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.feed import build_sources
from voicetextblender.train.loss import token_losses

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text as RichText

EXAMINED = 40
"""Conversations of each source that are looked at and listened to."""
SILENCE = 1e-3
"""Peak below which a clip holds nothing to hear; full scale is 1."""
MANY_EPOCHS = 30
AUDIBLE = 0.95
"""A model that hears has at most this share of the loss that it has with another clip."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    is_well: bool
    found: str
    remedy: str = ""
    examples: tuple["RichText", ...] = ()
    """To be looked at."""


@dataclass(slots=True)
class Patient:
    """One conversation on the table."""

    source: Source
    number: int
    """Its number in the source, which names it where it cannot be read."""
    conversation: Conversation | None = None
    clips: list[np.ndarray] = field(default_factory=list)
    sample: Sample | None = None
    error: tuple[str, str] | None = None
    """The check at which it failed, and why."""


def examine(recipe: Recipe) -> Iterator[Finding]:
    """Yield the findings, cheap checks first; what cannot be gone past ends them."""
    try:
        processor = SpeechLMProcessor.from_parts(recipe.model)
        sources = build_sources(recipe.blend)
    except (ValueError, OSError) as error:
        yield Finding("parts and data are there", False, str(error), "name what exists")
        return
    names = ", ".join(f"{s.name} {s.kind}".strip() for s in sources)
    yield Finding("parts and data are there", True, f"{len(sources)} sources: {names}")
    patients = [p for source in sources for p in admit(source, processor)]
    yield from examine_data(recipe, processor, patients)
    well = [p for p in patients if p.sample and len(p.sample) <= recipe.train.tokens_per_batch]
    if not well:
        return
    dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    torch.manual_seed(recipe.train.seed)
    model = SpeechLM.from_parts(recipe.model, processor.audio_token_id, dtype).eval()
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    is_trained = (Path(recipe.run) / "model" / "model.safetensors").is_file()
    if is_trained:
        try:
            model.load_trained(Path(recipe.run) / "model")
        except ValueError as error:
            remedy = "use the recipe that trained it, or another 'run'"
            yield Finding("the run's model fits the recipe", False, str(error), remedy)
            return
    yield from examine_model(recipe, model, processor, well, is_trained)


def consult(recipe: Recipe, console: "Console") -> bool:
    """Print an example of each source and all findings; return whether all is well."""
    from rich.text import Text as Plain
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would be drawn between the findings
    is_well = True
    for finding in examine(recipe):
        is_well = is_well and finding.is_well
        mark = Plain("✓ " if finding.is_well else "✗ ", "green" if finding.is_well else "bold red")
        console.print(mark + Plain(f"{finding.check}: {finding.found}"), soft_wrap=True)
        if finding.remedy:
            console.print(Plain(f"  → {finding.remedy}", "yellow"), soft_wrap=True)
        for example in finding.examples:
            console.print(Plain("  ") + example, soft_wrap=True)
    return is_well


def admit(source: Source, processor: SpeechLMProcessor) -> Iterator[Patient]:
    """Yield conversations, evenly spread over the source, read, heard and encoded."""
    for place in spread(len(source), EXAMINED):
        patient = Patient(source, place)
        check = "conversations can be read"
        try:
            patient.conversation = source[patient.number]
            check = "labels and slots agree with the chat template"
            processor.prompter.encode(patient.conversation)
            check = "clips can be heard"
            patient.clips = load_clips(patient.conversation)
            patient.sample = processor.encode(patient.conversation, patient.clips, source.name)
        except (ValueError, OSError) as error:
            patient.error = (check, str(error))
        yield patient


def examine_data(
    recipe: Recipe, processor: SpeechLMProcessor, patients: Sequence[Patient]
) -> Iterator[Finding]:
    """Yield what is right and wrong with the conversations."""
    from rich.text import Text as Plain

    remedies = {
        "conversations can be read": "correct the line; vtb data inspect finds all of them",
        "labels and slots agree with the chat template": "change the turns or the template",
        "clips can be heard": "replace the files, or set train.max_broken to leave some out",
    }
    for check, remedy in remedies.items():
        errors = [p.error[1] for p in patients if p.error and p.error[0] == check]
        yield _counted(check, errors, len(patients), remedy)
    firsts = {p.source.name: p.sample for p in reversed(patients) if p.sample}
    examples = tuple(
        Plain(f"{name}: ", "bold") + coloured(sample, processor) for name, sample in firsts.items()
    )
    text = f"one conversation of {len(examples)} sources: green is scored, ♪ are audio positions"
    if examples:
        yield Finding("this is what it learns to say", True, text, examples=examples)
    heard = [p for p in patients if p.sample]
    questions: list[tuple[str, Callable[[Patient], str | None], str]] = [
        ("every answer has words", _empty_answer, "leave such conversations out"),
        (
            "clips are not silent",
            _silent,
            "look at how they were cut and leave them out, or say that nobody speaks: text ''",
        ),
        ("clips are as long as stated", _cut_short, "correct 'start' and 'duration'"),
        (
            "conversations fit a row",
            lambda p: _too_long(p, recipe.train.tokens_per_batch),
            "raise train.tokens_per_batch, shorten them, or set train.over_long=skip",
        ),
        (
            "what is said fits the clip",
            lambda p: _too_many_words(p, processor),
            "the text is of another clip, or the clip is cut: correct the pair",
        ),
        (
            "the template is the tokenizer's own",
            lambda p: _other_template(p, processor),
            "use the LLM's own tokenizer and template",
        ),
    ]
    for check, question, remedy in questions:
        yield _counted(check, [why for p in heard if (why := question(p))], len(heard), remedy)
    spoken = [clip for p in heard if p.conversation for clip in p.conversation.clips]
    mute = [clip.audio for clip in spoken if not clip.text]
    if recipe.train.ctc_weight and spoken:
        is_well = len(mute) < 0.5 * len(spoken)
        remedy = "add 'text' to the audio parts, or set train.ctc_weight=0"
        found = f"{len(spoken) - len(mute)} of {len(spoken)} clips have a text for CTC"
        yield Finding("CTC knows what is said", is_well, found, "" if is_well else remedy)


def examine_model(
    recipe: Recipe,
    model: SpeechLM,
    processor: SpeechLMProcessor,
    patients: Sequence[Patient],
    is_trained: bool,
) -> Iterator[Finding]:
    """Yield what is right and wrong with the model on these conversations."""
    parts = model.trained_parts()
    counts = {part: sum(p.numel() for p in own) for part, own in parts.items()}
    total = sum(p.numel() for p in model.parameters())
    listed = ", ".join(f"{part} {number:,}" for part, number in counts.items())
    yield Finding("what is to be trained trains", True, f"{listed}; of {total:,} in all")
    yield _voice_off_is_the_llm(recipe, model, patients)
    if "lora" in parts and recipe.model.train.llm == "lora":
        yield _lora_changes_the_output(model, patients)
    spoken = [p for p in patients if p.clips][:8]
    if spoken:
        yield _audio_matters(model, processor, spoken, is_trained)
    yield _gradients_reach(model, processor, patients)
    yield _fits_in_memory(recipe, model, processor, patients)


def answer_loss(model: SpeechLM, batch: Batch) -> Tensor:
    """Return the mean next-token loss over the batch's answers."""
    is_bf16 = model.table.dtype == torch.bfloat16
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bf16):
        audio = model.table.new_zeros(0, model.table.shape[1])
        if batch.clip_lens:
            audio, _ = model.embed_audio(batch.features, batch.clip_lens)
        embeds = model.embed(batch.input_ids, audio)
        hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens)[0]
        is_scored = batch.labels != IGNORE
        return token_losses(hidden[is_scored], batch.labels[is_scored], model.project).mean()


def coloured(sample: Sample, processor: SpeechLMProcessor) -> "RichText":
    """Return a sample's tokens: what is scored in green, clips as notes, the rest dim."""
    from rich.text import Text as Plain

    shown = Plain()
    labels = [IGNORE, *sample.labels[:-1]]  # at the token itself, not at the one before it
    audio = 0
    for token, label in zip([*sample.ids, None], [*labels, IGNORE], strict=True):
        if token == processor.audio_token_id:
            audio += 1
            continue
        if audio:
            shown.append(f"♪{audio}", "bold magenta")
            audio = 0
        if token is not None:
            word = processor.tokenizer.decode([token]).replace("\n", "⏎")
            printable = "".join(c if c.isprintable() else "�" for c in word)
            shown.append(printable, "green" if label != IGNORE else "dim")
    return shown


def available_memory() -> int:
    """Return the bytes that a process may still take on this machine's CPU side."""
    try:
        with open("/proc/meminfo") as file:
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _counted(check: str, errors: Sequence[str], num: int, remedy: str) -> Finding:
    if not errors:
        return Finding(check, True, f"{num} looked at")
    return Finding(check, False, f"{len(errors)} of {num} do not; the first: {errors[0]}", remedy)


def _empty_answer(patient: Patient) -> str | None:
    assert patient.conversation
    clips = patient.conversation.clips
    if clips and all(clip.text == "" for clip in clips):
        return None  # the transcript of silence
    for turn in patient.conversation.messages:
        if turn.role == "assistant" and not any(p.text and p.text.strip() for p in turn.parts):
            return f"conversation '{patient.conversation.id}' has an answer without a word"
    return None


def _clips(patient: Patient) -> Iterator[tuple[Audio, np.ndarray]]:
    assert patient.conversation
    return zip(patient.conversation.clips, patient.clips, strict=True)


def _silent(patient: Patient) -> str | None:
    for clip, samples in _clips(patient):
        if clip.text != "" and (peak := float(np.abs(samples).max())) < SILENCE:
            return f"{clip.audio}: nothing louder than {peak:.5f} of full scale"
    return None


def _cut_short(patient: Patient) -> str | None:
    for clip, samples in _clips(patient):
        length_s = len(samples) / SAMPLE_RATE
        if clip.duration and length_s < clip.duration - 0.05:
            return f"{clip.audio}: {length_s:.2f} s of sound where {clip.duration:.2f} s are stated"
    return None


def _too_long(patient: Patient, budget: int) -> str | None:
    assert patient.sample
    if len(patient.sample) <= budget:
        return None
    return f"conversation '{patient.sample.id}' has {len(patient.sample)} positions of {budget}"


def _too_many_words(patient: Patient, processor: SpeechLMProcessor) -> str | None:
    assert patient.sample
    pairs = zip(_clips(patient), patient.sample.features, patient.sample.ctc_targets, strict=True)
    for (clip, samples), features, target in pairs:
        num = -(-len(features) // processor.features_per_embedding)
        if target is not None and len(target) > num:
            length_s = len(samples) / SAMPLE_RATE
            return (
                f"{clip.audio}: {len(target)} tokens of text in {length_s:.2f} s, {num} positions"
            )
    return None


def _other_template(patient: Patient, processor: SpeechLMProcessor) -> str | None:
    """Compare a conversation without clips with what the tokenizer itself makes of it."""
    assert patient.conversation and patient.sample
    if patient.clips:
        return None
    turns = [
        {"role": t.role, "content": "".join(p.text for p in t.parts if isinstance(p, Text))}
        for t in patient.conversation.messages
    ]
    theirs = processor.tokenizer.apply_chat_template(turns, return_dict=False)
    if theirs == patient.sample.ids or any(len(t.parts) > 1 for t in patient.conversation.messages):
        return None
    return f"conversation '{patient.conversation.id}' has other ids than apply_chat_template gives"


def _batch(samples: Sequence[Sample], processor: SpeechLMProcessor, model: SpeechLM) -> Batch:
    return collate(samples, processor.num_mel_bins).to(model.device)


def _text_row(model: SpeechLM, patient: Patient) -> Tensor:
    """Return the first ids of a conversation, (1, n), audio positions left out."""
    assert patient.sample
    row = [token for token in patient.sample.ids if token != model.config.audio_token_id]
    return torch.tensor([row[:256]], device=model.device)


@torch.no_grad()
def _voice_off_is_the_llm(recipe: Recipe, model: SpeechLM, patients: Sequence[Patient]) -> Finding:
    check = "voice off is the LLM itself"
    row = _text_row(model, patients[0])
    base = AutoModelForCausalLM.from_pretrained(
        resolve(recipe.model.llm), dtype=model.table.dtype, attn_implementation=PACKED
    )
    torch.nn.Module.to(base, model.device)
    with model.voice_off():
        ours = model.llm(row).logits
    differs = float((ours - base.eval()(row).logits).abs().max())
    if differs == 0.0:
        return Finding(check, True, "logits are bit for bit those of the LLM")
    remedy = "the LLM's own weights were changed: train only LoRA, and load the LLM anew"
    return Finding(check, False, f"logits differ by up to {differs:.3g}", remedy)


@torch.no_grad()
def _lora_changes_the_output(model: SpeechLM, patients: Sequence[Patient]) -> Finding:
    check = "LoRA changes the output"
    updates = [p for name, p in model.llm.named_parameters() if "lora_B" in name]
    before = [p.clone() for p in updates]
    for p in updates:
        p += 0.1 * torch.randn_like(p)
    row = _text_row(model, patients[0])
    with_it = model.llm(row).logits
    with model.voice_off():
        without = model.llm(row).logits
    for p, old in zip(updates, before, strict=True):
        p.copy_(old)
    if updates and not torch.equal(with_it, without):
        return Finding(check, True, f"{len(updates)} updates reach the logits")
    remedy = "look at model.lora and at which layers it found: it is not applied"
    return Finding(check, False, f"{len(updates)} updates, and none reaches the logits", remedy)


@torch.no_grad()
def _audio_matters(
    model: SpeechLM, processor: SpeechLMProcessor, spoken: Sequence[Patient], is_trained: bool
) -> Finding:
    """Compare the loss with the clips, with each other's clips, and with silence."""
    check = "the audio matters"
    clips = [p.clips for p in spoken]
    others = [*clips[1:], clips[0]]
    lent = [
        [other[n % len(other)] for n in range(len(own))]
        for own, other in zip(clips, others, strict=True)
    ]
    silent = [[np.zeros_like(clip) for clip in own] for own in clips]

    def loss(heard: Sequence[list[np.ndarray]]) -> float:
        samples = [
            processor.encode(p.conversation, own)
            for p, own in zip(spoken, heard, strict=True)
            if p.conversation
        ]
        return answer_loss(model, _batch(samples, processor, model)).item()

    real, shuffled, silence = loss(clips), loss(lent), loss(silent)
    found = f"loss {real:.3f} with the clips, {shuffled:.3f} with others, {silence:.3f} with none"
    if is_trained:
        is_well = real < AUDIBLE * min(silence, shuffled if len(spoken) > 1 else silence)
        remedy = "it does not listen: train longer, with train.ctc_weight above 0"
    else:
        is_well = real != silence
        found += "; not trained yet, so only that it makes a difference counts"
        remedy = "no audio reaches the LLM: look at the encoder and the adapter"
    return Finding(check, is_well, found, "" if is_well else remedy)


def _gradients_reach(
    model: SpeechLM, processor: SpeechLMProcessor, patients: Sequence[Patient]
) -> Finding:
    check = "gradients reach every part"
    spoken = [p for p in patients if p.clips]
    samples = [p.sample for p in (spoken[:1] or patients[:1]) if p.sample]
    answer_loss(model, _batch(samples, processor, model)).backward()
    norms = {
        part: sum(float(p.grad.norm()) for p in own if p.grad is not None)
        for part, own in model.trained_parts().items()
        if spoken or part == "lora"
    }
    model.zero_grad(set_to_none=True)
    found = ", ".join(f"{part} {norm:.3g}" for part, norm in norms.items())
    is_well = all(np.isfinite(norm) and norm > 0 for norm in norms.values())
    remedy = "a part is cut off or overflows: try train.precision=fp32, look at its weights"
    return Finding(check, is_well, f"norms: {found}", "" if is_well else remedy)


def _fits_in_memory(
    recipe: Recipe, model: SpeechLM, processor: SpeechLMProcessor, patients: Sequence[Patient]
) -> Finding:
    """Estimate what a full row takes from what the longest conversation keeps for its gradient."""
    check = "the longest row fits in memory"
    samples = sorted((p.sample for p in patients if p.sample), key=len)
    short, long = samples[len(samples) // 4], samples[-1]
    room = torch.cuda.mem_get_info()[0] if model.device.type == "cuda" else available_memory()
    state = 12 * sum(p.numel() for own in model.trained_parts().values() for p in own)
    kept = kept_bytes(model, _batch([short], processor, model))
    num = len(short)
    # Attention grows with the square, so this bounds it; the long one runs only if it will fit.
    if state + kept * (len(long) / num) ** 2 < room:
        kept, num = kept_bytes(model, _batch([long], processor, model)), len(long)
    needed = state + kept * recipe.train.tokens_per_batch // num
    found = (
        f"{needed / 2**30:.2f} GiB for a row of {recipe.train.tokens_per_batch} positions and the "
        f"optimiser, {room / 2**30:.1f} GiB free"
    )
    remedy = "lower train.tokens_per_batch, and raise train.rows_per_step instead"
    return Finding(check, needed < room, found, "" if needed < room else remedy)


def kept_bytes(model: SpeechLM, batch: Batch) -> int:
    """Return how much a forward pass in training keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer_loss(model.train(), batch)
    model.eval()
    return sum(kept.values())
