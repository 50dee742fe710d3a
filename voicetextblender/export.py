"""Export: a trained model as others want it: merged into one folder, adapter only, with a card."""

import json
import shutil
from pathlib import Path

import torch
import yaml
from peft.tuners.tuners_utils import BaseTunerLayer

from voicetextblender.config import ModelConfig, Recipe, TrainedParts, load_recipe
from voicetextblender.eval.results import Run, read_run
from voicetextblender.eval.scores import Score
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import PARTS
from voicetextblender.model.processing import SpeechLMProcessor

FORMS = ("merged", "vllm", "adapter", "card")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# What is of no use to a user of the model.
_RUN_STATE = ("optimizer.safetensors", "position.json", "README.md")


def export(model: Path, form: str, out: Path, dtype: str = "bfloat16") -> None:
    """Write a trained model to a new folder, with its card.

    `merged` holds all weights, with the low-rank updates in them, and needs nothing else; vLLM
    serves it as it is, so `vllm` is another word for it. `adapter` holds what was trained.
    Raises ValueError for a folder without a model, another form or dtype, or an `out` that is not
    empty.
    """
    if form not in FORMS:
        raise ValueError(f"'{form}' is no form of export; use one of {', '.join(FORMS)}")
    if dtype not in DTYPES:
        raise ValueError(f"'{dtype}' is no dtype to export; use one of {', '.join(DTYPES)}")
    if not (model / "config.json").is_file():
        raise ValueError(f"{model}: no model here; name the folder of a trained model")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is there already and not empty; name a new folder")
    text = card(model, is_merged=form in ("merged", "vllm"))
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    if form == "adapter":
        shutil.copytree(model, draft, ignore=shutil.ignore_patterns(*_RUN_STATE))
    else:
        draft.mkdir(parents=True)
    if form in ("merged", "vllm"):
        _write_merged(model, draft, DTYPES[dtype])
    (draft / "README.md").write_text(text, encoding="utf-8")
    draft.replace(out)


def _write_merged(model: Path, out: Path, dtype: torch.dtype) -> None:
    whole = SpeechLM.from_pretrained(model, dtype=torch.float32)
    merge(whole)
    for tensor in whole.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    whole.config.dtype = dtype
    whole.save_pretrained(out)
    SpeechLMProcessor.from_pretrained(model).save_pretrained(out)
    for name in ("recipe.yaml", "provenance.json"):
        if (model / name).is_file():
            shutil.copy(model / name, out / name)


def merge(model: SpeechLM) -> None:
    """Put the low-rank updates into the weights, in place; exact to the rounding of its dtype.

    The model is whole from then on: it is saved with all its weights. There is no `voice_off` left.
    """
    for part in (model.llm, model.encoder):
        for name, layer in list(part.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                part.set_submodule(name, layer.get_base_layer())
    trained = TrainedParts(encoder="frozen", llm="frozen")
    model.config.settings = model.config.model.model_copy(update={"train": trained}).model_dump()
    model.config.is_whole = True


def card(model: Path, is_merged: bool = False) -> str:
    """Return the model card, in the Hugging Face format, from what the model's folder tells.

    Scores are those of the run that the folder lies in, where it was evaluated. What is not known
    is not said.
    """
    settings = SpeechLMConfig.from_pretrained(model).model
    run = read_run(model.parent)
    recipe = load_recipe(model / "recipe.yaml") if (model / "recipe.yaml").is_file() else None
    facts = model / "provenance.json"
    made = json.loads(facts.read_text()) if facts.is_file() else {}
    name = model.resolve().parent.name if model.name == "model" else model.resolve().name
    sections = (
        f"# {name}",
        f"A speech language model: **{_hub_id(settings.llm)}** hears through the encoder of "
        f"**{_hub_id(settings.encoder)}** and a {settings.adapter.kind} adapter. Made with "
        f"voicetextblender by one stage of joint speech-text fine-tuning.",
        "## Use",
        _USE.format(folder="." if is_merged else model.name),
        "This folder holds all weights, the low-rank updates merged into them."
        if is_merged
        else "This folder holds what was trained; encoder and language model are found by name.",
        "## Parts",
        _parts(settings),
        *_scores(run),
        *_blend(recipe),
        "## Limits",
        "Words that it was not trained to hear it will not hear; it can write words that nobody "
        "said. Measure it on your own recordings before you rely on it, and keep a human in every "
        "decision about people.",
        "## Made with",
        _table([("", ""), *((key, str(value)) for key, value in made.items())]) if made else "",
    )
    return _front_matter(name, settings, run) + "\n" + "\n\n".join(filter(None, sections)) + "\n"


_USE = """```python
import voicetextblender.model.modeling, voicetextblender.model.processing
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{folder}")
processor = AutoProcessor.from_pretrained("{folder}")
```

`vtb transcribe FILE --model {folder}`, `vtb chat --model {folder}`, `vtb serve --model {folder}`"""


def _front_matter(name: str, settings: ModelConfig, run: Run) -> str:
    ours = (_hub_id(settings.llm), _hub_id(settings.encoder))
    licences = {part.license.lower() for part in PARTS if part.hub_id in ours}
    results = [
        {
            "task": {"type": "automatic-speech-recognition"},
            "dataset": {"name": f"{row.set} ({row.speech} speech)", "type": row.set},
            "metrics": [{"type": "wer", "value": round(100 * row.value, 2)}],
        }
        for row in _word_error_rates(run)
        if not row.seen
    ]
    heard = {of.set for of in _word_error_rates(run)}
    fields = {
        "language": sorted(
            {str(row.group) for row in run.scores if row.by == "lang" and row.set in heard}
        ),
        "license": licences.pop() if len(licences) == 1 else "other",
        "library_name": "transformers",
        "pipeline_tag": "audio-text-to-text",
        "base_model": list(ours),
        "tags": ["speech", "voicetextblender"],
        "model-index": [{"name": name, "results": results}] if results else [],
    }
    written = {key: value for key, value in fields.items() if value}
    return f"---\n{yaml.safe_dump(written, sort_keys=False, allow_unicode=True)}---\n"


def _parts(settings: ModelConfig) -> str:
    adapter = settings.adapter
    llm = f"LoRA, rank {settings.lora.rank}" if settings.train.llm == "lora" else "frozen"
    return _table(
        [
            ("part", "what", "trained"),
            ("encoder", _hub_id(settings.encoder), settings.train.encoder),
            ("adapter", f"{adapter.kind}, width {adapter.width}, stack {adapter.stack}", "fully"),
            ("language model", _hub_id(settings.llm), llm),
        ]
    )


def _scores(run: Run) -> list[str]:
    sections = []
    if heard := _word_error_rates(run):
        head = ("set", "speech", "heard in training", "clips", "WER", "95 %", "Whisper's own WER")
        rows = [
            (
                row.set,
                row.speech,
                "yes" if row.seen else "no",
                str(row.num_items),
                f"{100 * row.value:.1f} %",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                f"{100 * whisper.value:.1f} %" if (whisper := run.row(row, "whisper")) else "",
            )
            for row in heard
        ]
        how = sorted({f"{row.decoding}; {row.scored_with}" for row in heard})
        sections += ["## What it hears", _table([head, *rows]), f"Made with: {'; '.join(how)}."]
    for of in run.sets("none").values():
        base, ours = run.row(of, "base"), run.row(of, "ours")
        if of.metric == "perplexity" and base and ours:
            are = "are" if run.is_identical(of.set) else "are not"
            sections += [
                "## What it kept of its language model",
                f"Perplexity on plain text {base.value:.2f} before and {ours.value:.2f} after "
                f"({ours.num_items} passages; {ours.scored_with}). With the voice off its logits "
                f"{are} bit for bit those of the language model.",
            ]
    return sections


def _word_error_rates(run: Run) -> list[Score]:
    sets = run.sets("real", "synthetic").values()
    rows = (run.row(of, "ours") for of in sets if of.metric == "wer")
    return [row for row in rows if row is not None]


def _blend(recipe: Recipe | None) -> list[str]:
    if recipe is None:
        return []
    total = sum(source.weight for source in recipe.blend)
    rows = [(source.name, f"{source.weight / total:.0%}") for source in recipe.blend]
    trained = f"{recipe.train.steps:,} steps of up to {recipe.train.tokens_per_batch:,} positions."
    return ["## Training", trained, _table([("source", "share of conversations"), *rows])]


def _hub_id(name: str) -> str:
    """Return the name under which others know a part."""
    return next(
        (part.hub_id for part in PARTS if part.alias == name),
        Path(name).name if Path(name).is_dir() else name,
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
