"""make demo: join Whisper-base and SmolLM2, teach the pair to hear in ten minutes, and measure it.

Run from the repository's folder. Each step's files stay in runs/demo, so a demo that was stopped
goes on where it was.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voicetextblender.config import load_recipe
from voicetextblender.eval.report import write_report
from voicetextblender.eval.run import evaluate
from voicetextblender.eval.suite import load_suite
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.progress import progress_bar
from voicetextblender.synth.asr import SpokenSentences, speak
from voicetextblender.synth.sources import read_sentences
from voicetextblender.train.log import one_line
from voicetextblender.train.loop import train

RUN = Path("runs/demo")


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
    suite = load_suite("suites/demo.yaml")
    with step("2/5 before training: what it hears") as advance:
        model = SpeechLM.from_parts(recipe.model, processor.audio_token_id).eval()
        short = {"limit": 8, "max_new_tokens": 40}
        few = tuple(s.model_copy(update=short) for s in suite.sets if s.scorer == "wer")
        before = suite.model_copy(update={"sets": few})
        evaluate(model, processor, before, RUN / "eval/before", only=["ours"], report=advance)

    with step("3/5 joint speech-text training") as advance:
        folder = train(
            recipe,
            report=lambda line: advance(line["step"] / recipe.train.steps, one_line(line)),
        )

    with step("4/5 after training: what it hears, what it kept") as advance:
        model = SpeechLM.from_pretrained(folder)
        scores = evaluate(model, processor, suite, RUN / "eval", report=advance)

    with step("5/5 the report"):
        report = write_report(RUN)

    print(f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes.")
    for row in scores:
        if row.system == "ours" and row.by is None and row.metric == "wer" and not row.against:
            print(f"  word error rate, {row.set}: {100 * row.value:.1f} %")
        if row.metric == "perplexity" and row.by is None and not row.against:
            print(f"  text perplexity, {row.system}: {row.value:.2f}")
    print(
        f"\nThe report: {report}\nTry next:\n"
        f"  .venv/bin/vtb transcribe data/asterisk/clips/en/*.opus --model {folder}\n"
        f"  .venv/bin/vtb chat --model {folder}\n"
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
