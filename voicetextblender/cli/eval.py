"""The verbs that measure: `vtb eval`, `vtb score`, `vtb lm-eval`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from voicetextblender.cli.common import load_model, note


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="MODEL")],
    suite: Annotated[Path, typer.Argument(help="YAML file of what to ask.", metavar="SUITE")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: eval beside the model.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Systems to ask, such as ours,base.", metavar="NAMES")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Items of each set, evenly spaced; all if left out.", min=1)
    ] = None,
    score_only: Annotated[
        bool, typer.Option(help="Score the predictions that are there; no model is loaded.")
    ] = False,
) -> None:
    """Ask a suite of a model, of the LLM that it began as, and of a cascade; score the answers.

    Example: vtb eval runs/demo/model suites/full.yaml --limit 16 --out runs/demo/eval-small
    """
    from voicetextblender.eval.report import verdict, write_report
    from voicetextblender.eval.results import read_run
    from voicetextblender.eval.scores import score_folder
    from voicetextblender.eval.suite import load_suite, shortened

    asked = load_suite(suite)
    if limit is not None:
        asked = shortened(asked, limit)
    out = out or model.parent / "eval"
    if score_only:
        scores = score_folder(out)
        write_report(out)
    else:
        speech_lm, processor = load_model(model)
        from voicetextblender.eval.run import evaluate
        from voicetextblender.progress import progress_bar

        with progress_bar(f"asking {asked.name}") as progress:
            systems = only.split(",") if only else None
            scores = evaluate(speech_lm, processor, asked, out, only=systems, report=progress)
    for sentence in verdict(read_run(out)):
        typer.echo(sentence)
    note(f"{len(scores)} numbers in {out / 'results.json'}; to be read: {out / 'report.html'}")


def lm_eval(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="MODEL")],
    tasks: Annotated[
        list[str], typer.Argument(help="Tasks of lm-eval, such as arc_challenge.", metavar="TASK…")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of benchmarks' published files.", metavar="DIR")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: eval beside the model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Items of each task.", min=1)] = None,
) -> None:
    """Run text benchmarks on the base LLM, and on the model with its voice off and on.

    Example: vtb lm-eval runs/demo/model arc_challenge --data data/eval --limit 100
    """
    if not (model / "config.json").is_file():
        raise ValueError(f"{model}: no model here; name the folder of a trained one")
    from voicetextblender.eval.harness import compare
    from voicetextblender.progress import progress_bar

    with progress_bar("lm-eval") as progress:
        found = compare(model, tasks, data, out or model.parent / "eval", limit, progress)
    for task, metrics in found["ours"].items():
        for metric, ours in metrics.items():
            before = [found[name][task][metric] for name in ("llm", "base")]
            typer.echo(f"{task} {metric}: LLM {before[0]:.4f}, voice off {before[1]:.4f}, "
                       f"voice on {ours:.4f}")  # fmt: skip


def score(
    predictions: Annotated[
        Path, typer.Argument(help="JSON lines with an id and an answer.", metavar="PREDICTIONS")
    ],
    references: Annotated[
        Path, typer.Argument(help="Conversations that end with the reference.", metavar="JSONL")
    ],
    scorer: Annotated[str, typer.Option(help="Such as wer, translation, qa, number.")] = "wer",
    normaliser: Annotated[
        str, typer.Option(help="basic, none, whisper-english or whisper-basic.")
    ] = "basic",
    merge_compounds: Annotated[
        bool, typer.Option(help='Count "ice cream" and "icecream" as the same.')
    ] = False,
) -> None:
    """Score answers that lie in a file, whoever made them; writes JSON to standard output.

    Example: vtb score answers.jsonl data/asterisk/test.jsonl --normaliser whisper-english
    """
    from voicetextblender.eval.scores import dump_scores, score_files

    kind = (scorer, normaliser, merge_compounds)
    sys.stdout.buffer.write(dump_scores(score_files(predictions, references, *kind)))


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command("eval")(evaluate)
    app.command()(score)
    app.command("lm-eval")(lm_eval)
