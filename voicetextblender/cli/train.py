"""The verbs that train: `vtb train`."""

from typing import Annotated

import typer

from voicetextblender.cli.common import Overrides, RecipeArgument, note


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint of the run.")
    ] = True,
) -> None:
    """Train a speech language model by joint speech-text fine-tuning.

    Example: vtb train recipes/demo.yaml train.steps=200
    """
    from voicetextblender.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from voicetextblender.progress import progress_bar
    from voicetextblender.train.loop import one_line
    from voicetextblender.train.loop import train as run

    with progress_bar("training") as advance:
        folder = run(
            settings,
            resume=resume,
            report=lambda line: advance(line["step"] / settings.train.steps, one_line(line)),
        )
    note(f"The model is in {folder}")


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command()(train)
