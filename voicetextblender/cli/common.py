"""What every verb of `vtb` needs: messages, a trained model, the options that several share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from voicetextblender.model.modeling import SpeechLM
    from voicetextblender.model.processing import SpeechLMProcessor

DEFAULT_MODEL = Path(__file__).parents[2] / "models/nano"
"""The model that comes with a checkout."""
ModelOption = Annotated[
    Path, typer.Option("--model", help="Folder of a trained model.", metavar="DIR")
]
RecipeArgument = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change.", metavar="[KEY=VALUE]…")
]


def note(text: str) -> None:
    """Write to standard error, so that standard output holds nothing but results."""
    print(text, file=sys.stderr)


def load_model(folder: Path) -> tuple["SpeechLM", "SpeechLMProcessor"]:
    """Load a trained model and its processor. Raises ValueError if there is none."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: no model here; name a model's folder with --model, such as a checkout's "
            f"models/nano, or train one with 'vtb train recipes/demo.yaml'"
        )
    from voicetextblender.model.modeling import SpeechLM
    from voicetextblender.model.processing import SpeechLMProcessor

    return SpeechLM.from_pretrained(folder), SpeechLMProcessor.from_pretrained(folder)
