"""The verbs that give a model to others: `vtb export`."""

from pathlib import Path
from typing import Annotated

import typer

from voicetextblender.cli.common import note


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="New folder to write.", metavar="DIR")],
    to: Annotated[
        str, typer.Option(help="merged, vllm, adapter or card.", metavar="FORM")
    ] = "merged",
    dtype: Annotated[
        str, typer.Option(help="Of merged weights: bfloat16, float16 or float32.")
    ] = "bfloat16",
) -> None:
    """Write a model for others: merged into one folder (for vLLM too), adapter only, or its card.

    Example: vtb export runs/demo/model --to merged --out runs/demo/merged
    """
    from voicetextblender.export import export as write

    write(model, to, out, dtype)
    note(f"Written to {out}")


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command()(export)
