"""The verbs that give a model to others: `vtb ui`, `vtb export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicetextblender.cli.common import DEFAULT_MODEL, ModelOption, load_model, note

if TYPE_CHECKING:
    from voicetextblender.serve.ui import Speak


def ui(
    model: ModelOption = DEFAULT_MODEL,
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page.", min=1, max=65535)] = 7860,
    keep: Annotated[
        Path, typer.Option(help="Where conversations are kept that got a thumb.", metavar="DIR")
    ] = Path("runs/kept"),
    voice: Annotated[str, typer.Option(help="Reads answers aloud, such as hibari.")] = "hibari",
    recogniser: Annotated[
        str, typer.Option(help="Whisper part to compare with, or http://HOST/v1#MODEL.")
    ] = "whisper-base",
) -> None:
    """Open a page to talk with a model, to transcribe recordings and to compare.

    Example: vtb ui --model runs/demo/model
    """
    from voicetextblender.serve.captions import captioning
    from voicetextblender.serve.engine import Engine
    from voicetextblender.serve.ui import Page, answering, launch, writing
    from voicetextblender.synth.check import load_recogniser

    speech_lm, processor = load_model(model)
    engine = Engine(speech_lm, processor, name=str(model))
    captions = captioning(engine)
    page = Page(
        str(model),
        keep,
        ask=answering(engine, captions),
        captions=captions,
        write_down=writing(engine),
        speak=_speak(voice),
        # A merged model has no language model of before in it to compare with.
        hear=None
        if speech_lm.config.is_whole
        else lambda clip, lang: load_recogniser(recogniser).recognise([clip], lang)[0],
    )
    note(f"The page is at http://{host}:{port} (Ctrl-C ends)")
    launch(page, host, port)


def _speak(voice: str) -> "Speak | None":
    """Return what reads aloud; None, with a note, where the voice is not installed."""
    from voicetextblender.synth.voices import load_voice

    try:
        speaker = load_voice(voice)
    except ValueError as error:
        note(f"Answers are not read aloud: {error}")
        return None
    return lambda text: (speaker.rate, speaker.speak(text, seed=0))


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
    app.command()(ui)
    app.command()(export)
