"""The verbs that train: `vtb plan`, `vtb doctor`, `vtb train`."""

import os
import sys
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
    from voicetextblender.train.log import one_line
    from voicetextblender.train.loop import train as run

    if os.environ.get("RANK", "0") != "0":  # torchrun's other processes say nothing
        run(settings, resume=resume)
        return
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
    show_plan(made, Console(width=None if sys.stdout.isatty() else 120))


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


def bench(
    name: Annotated[str, typer.Argument(help="Which: a script in benchmarks/.", metavar="NAME")],
    options: Annotated[list[str] | None, typer.Argument(help="Options of the script.")] = None,
) -> None:
    """Measure speed side by side with other ways, as ratios in one run.

    Example: vtb bench train -- --conversations 24
    """
    import subprocess
    import sys
    from pathlib import Path

    import voicetextblender

    folder = Path(voicetextblender.__file__).parents[1] / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.py"))
    if not known:
        raise ValueError("benchmarks come with the repository, not with the package; clone it")
    if name not in known:
        raise ValueError(f"'{name}' is no benchmark; choose one of {', '.join(known)}")
    script = [sys.executable, str(folder / f"{name}.py"), *(options or [])]
    raise typer.Exit(subprocess.run(script).returncode)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command()(bench)
    app.command()(plan)
    app.command()(doctor)
    app.command()(train)
