"""The verbs that measure: `vtb eval`, `vtb score`."""

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
    score_only: Annotated[
        bool, typer.Option(help="Score the predictions that are there; no model is loaded.")
    ] = False,
) -> None:
    """Ask a suite of a model, of the LLM that it began as, and of a cascade; score the answers.

    Example: vtb eval runs/demo/model suites/real.yaml --out runs/demo/eval
    """
    from voicetextblender.eval.suite import load_suite

    asked = load_suite(suite)
    out = out or model.parent / "eval"
    from voicetextblender.eval.scores import score_folder

    if score_only:
        scores = score_folder(out)
    else:
        speech_lm, processor = load_model(model)
        from voicetextblender.eval.run import evaluate
        from voicetextblender.progress import progress_bar

        with progress_bar(f"asking {asked.name}") as progress:
            systems = only.split(",") if only else None
            scores = evaluate(speech_lm, processor, asked, out, only=systems, report=progress)
    note(f"{len(scores)} numbers in {out / 'results.json'}")


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command("eval")(evaluate)
