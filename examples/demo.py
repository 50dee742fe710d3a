"""make demo: join Whisper-base and SmolLM2, teach the pair to hear in ten minutes, and measure it.

Run from the repository's folder. Each step's files stay in runs/demo, so a demo that was stopped
goes on where it was.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voicetextblender.config import load_recipe
from voicetextblender.eval.asr import EvalSet, evaluate_asr, whisper_asr
from voicetextblender.eval.old_retention import retention
from voicetextblender.eval.report import write_report
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.progress import progress_bar
from voicetextblender.synth.asr import SpokenSentences, read_sentences, speak
from voicetextblender.train.loop import one_line, train

RUN = Path("runs/demo")
SETS = (
    EvalSet("spoken, new sentences", RUN / "held-out/shard-00000.jsonl", "synthetic"),
    EvalSet("phone prompts, trained on", Path("data/asterisk/train.jsonl"), "real", True, 40),
    EvalSet("phone prompts, new", Path("data/asterisk/test.jsonl"), "real"),
)


def main() -> None:
    """Make the data, train, evaluate before and after, write the report."""
    began = time.perf_counter()
    recipe = load_recipe("recipes/demo.yaml")
    with step("1/5 a packaged voice speaks the training sentences") as advance:
        text = Path("data/text")
        train_set = SpokenSentences(read_sentences(text / "sentences.en.txt.gz"), longest_run=3)
        for done, total in speak(train_set, RUN / "spoken", workers=2):
            advance(done / total)
        held_out = SpokenSentences(read_sentences(text / "held-out.en.txt"), seed=1)
        for _ in speak(held_out, RUN / "held-out"):
            pass

    processor = SpeechLMProcessor.from_parts(recipe.model)
    with step("2/5 before training: what it hears"):
        model = SpeechLM.from_parts(recipe.model, processor.audio_token_id).eval()
        few = [EvalSet(s.name, s.path, s.speech, s.seen, limit=8) for s in SETS]
        evaluate_asr(model, processor, few, RUN / "eval/before", max_new_tokens=40)

    with step("3/5 joint speech-text training") as advance:
        folder = train(
            recipe,
            report=lambda line: advance(line["step"] / recipe.train.steps, one_line(line)),
        )

    with step("4/5 after training: what it hears, what it kept"):
        model = SpeechLM.from_pretrained(folder)
        heard = evaluate_asr(model, processor, SETS, RUN / "eval/after")
        whisper_asr(SETS, RUN / "eval/whisper")
        kept = retention(model, processor, text / "perplexity.en.txt", RUN / "eval/retention.json")

    with step("5/5 the report"):
        report = write_report(RUN)

    print(f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes.")
    for name, result in heard.items():
        print(f"  word error rate, {name}: {100 * result.overall.wer:.1f} %")
    print(f"  text perplexity: {kept.base_perplexity:.2f} before, {kept.ours_perplexity:.2f} after")
    print(
        f"\nThe report: {report}\nTry next:\n"
        f"  .venv/bin/vtb transcribe data/asterisk/clips/en/*.opus\n"
        f"  .venv/bin/vtb chat\n"
        f"  .venv/bin/vtb train recipes/demo.yaml run=runs/longer train.steps=2000"
    )


@contextmanager
def step(title: str) -> Iterator:
    """Say what begins, show how far it is, and say how long it took."""
    began = time.perf_counter()
    with progress_bar(title) as advance:
        yield advance
    print(f"{title}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
