"""The verbs that train: `vtb plan`, `vtb doctor`, `vtb train`."""

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


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option(help="Do a few steps, to know what they take and cost.")
    ] = True,
) -> None:
    """Say what a run will be made of, and what it will cost, without doing it.

    Example: vtb plan recipes/demo.yaml train.steps=2000 --no-measure
    """
    from voicetextblender.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from rich.console import Console

    from voicetextblender.progress import progress_bar
    from voicetextblender.train.plan import make_plan, show_plan

    with progress_bar("planning") as advance:
        made = make_plan(settings, measure, advance)
    show_plan(made, Console())


def doctor(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Examine a recipe, its data and its model, and say what to do about what is wrong.

    Example: vtb doctor recipes/demo.yaml
    """
    from voicetextblender.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from rich.console import Console

    from voicetextblender.train.doctor import consult

    if not consult(settings, Console()):
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command()(plan)
    app.command()(doctor)
    app.command()(train)
