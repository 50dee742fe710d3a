"""The verbs that use a model: `vtb transcribe`, `vtb chat`."""

import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voicetextblender.cli.common import DEFAULT_MODEL, ModelOption, load_model, note


class Format(StrEnum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", metavar="FILE…")],
    model: ModelOption = DEFAULT_MODEL,
    language: Annotated[str, typer.Option(help="What is spoken, such as en.")] = "en",
    format: Annotated[Format, typer.Option(help="How to write the transcript.")] = Format.TEXT,
) -> None:
    """Write down what is said in recordings; nothing else goes to standard output.

    Example: vtb transcribe talk.mp3 --format srt > talk.srt
    """
    speech_lm, processor = load_model(model)
    from voicetextblender.progress import progress_bar
    from voicetextblender.serve.transcribe import Transcript, to_srt, to_vtt, transcribe

    writers: dict[Format, Callable[[Transcript], str]] = {
        Format.TEXT: lambda t: t.text + "\n",
        Format.JSON: lambda t: json.dumps(t.to_json(), ensure_ascii=False) + "\n",
        Format.SRT: to_srt,
        Format.VTT: to_vtt,
    }
    failed = False
    for file in files:
        try:
            with progress_bar(file.name) as progress:
                transcript = transcribe(speech_lm, processor, file, language, progress)
        except (ValueError, OSError) as error:
            # One bad file does not lose the others.
            failed = True
            note(f"Error: {error}")
            continue
        sys.stdout.write(writers[format](transcript))
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


def chat(
    model: ModelOption = DEFAULT_MODEL,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy; 1 is lively.")] = 0.0,
) -> None:
    """Talk with a model: type, or add recordings with /audio FILE.

    Example: vtb chat --model runs/demo/model
    """
    speech_lm, processor = load_model(model)
    from voicetextblender.model.generate import Decoding
    from voicetextblender.serve.chat import HELP, Chat

    talk = Chat(speech_lm, processor, Decoding(max_new_tokens, temperature))
    note(HELP)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        match line.split(maxsplit=1):
            case []:
                if not talk.pending:
                    continue
                _answer(talk.say(""))
            case ["/quit"]:
                return
            case ["/new"]:
                talk.new()
            case ["/audio", path]:
                try:
                    note(f"{talk.add_audio(path):.1f} s added; now type a message, or just Enter")
                except (ValueError, OSError) as error:
                    note(f"Error: {error}")
            case [word, *_] if word.startswith("/"):
                note(f"'{word}' is no command; {HELP}")
            case _:
                _answer(talk.say(line))


def _answer(pieces: Iterator[str]) -> None:
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command()(transcribe)
    app.command()(chat)
