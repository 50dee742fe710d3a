"""The command `vtb`: one verb, one module, imported when the verb is used."""

import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from voicetextblender.model.modeling import SpeechLM
    from voicetextblender.model.processing import SpeechLMProcessor

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Give a language model the ability to understand speech, and prove it forgot nothing.",
)
data_app = typer.Typer(no_args_is_help=True, help="Conversations: import them, look at them.")
synth_app = typer.Typer(no_args_is_help=True, help="Make training conversations from text.")
app.add_typer(data_app, name="data")
app.add_typer(synth_app, name="synth")


class Format(StrEnum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


ModelOption = Annotated[
    Path, typer.Option("--model", help="Folder of a trained model.", metavar="DIR")
]
DEFAULT_MODEL = Path("runs/demo/model")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change.", metavar="[KEY=VALUE]…")
    ] = None,
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
    _note(f"The model is in {folder}")


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", metavar="FILE…")],
    model: ModelOption = DEFAULT_MODEL,
    language: Annotated[str, typer.Option(help="What is spoken, such as en.")] = "en",
    format: Annotated[Format, typer.Option(help="How to write the transcript.")] = Format.TEXT,
) -> None:
    """Write down what is said in recordings; nothing else goes to standard output.

    Example: vtb transcribe talk.mp3 --format srt > talk.srt
    """
    speech_lm, processor = _load(model)
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
            _note(f"Error: {error}")
            continue
        sys.stdout.write(writers[format](transcript))
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


@app.command()
def chat(
    model: ModelOption = DEFAULT_MODEL,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy; 1 is lively.")] = 0.0,
) -> None:
    """Talk with a model: type, or add recordings with /audio FILE.

    Example: vtb chat --model runs/demo/model
    """
    speech_lm, processor = _load(model)
    from voicetextblender.model.generate import Decoding
    from voicetextblender.serve.chat import HELP, Chat

    talk = Chat(speech_lm, processor, Decoding(max_new_tokens, temperature))
    _note(HELP)
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
                    _note(f"{talk.add_audio(path):.1f} s added; now type a message, or just Enter")
                except (ValueError, OSError) as error:
                    _note(f"Error: {error}")
            case [word, *_] if word.startswith("/"):
                _note(f"'{word}' is no command; {HELP}")
            case _:
                _answer(talk.say(line))


@data_app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="What the source is: asterisk.", metavar="KIND")],
    out: Annotated[Path, typer.Argument(help="Folder for the conversations.", metavar="DIR")],
) -> None:
    """Make conversations from recordings with text.

    Example: vtb data import asterisk data/asterisk-all
    """
    if kind != "asterisk":
        raise ValueError(f"'{kind}' is no kind of source; known: asterisk")
    from voicetextblender.data.importers import import_asterisk

    report = import_asterisk(out)
    _note(f"{report.kept} conversations, {report.hours:.2f} h, in {out}")
    for reason, count in sorted(report.dropped.items()):
        _note(f"  {count} dropped: {reason}")


@synth_app.command("asr")
def synth_asr(
    sentences: Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")],
    out: Annotated[Path, typer.Option(help="Folder for the conversations.", metavar="DIR")],
    longest_run: Annotated[int, typer.Option(help="Most sentences in one clip.", min=1)] = 4,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Decides speed, pauses and runs.", min=0)] = 0,
) -> None:
    """Have sentences spoken by the packaged voice, with their transcripts.

    Example: vtb synth asr data/text/sentences.en.txt.gz --out runs/spoken
    """
    from voicetextblender.progress import progress_bar
    from voicetextblender.synth.asr import SpokenSentences, read_sentences, speak

    spoken = SpokenSentences(read_sentences(sentences), longest_run=longest_run, seed=seed)
    with progress_bar("speaking") as progress:
        for done, total in speak(spoken, out, workers):
            progress(done / total)
    _note(f"Read them back as '{out}/*.jsonl'")


def main() -> None:
    """Run `vtb`; what a user can cause ends with one sentence and a non-zero code."""
    try:
        app()
    except (ValueError, OSError) as error:
        _note(f"Error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _load(folder: Path) -> tuple["SpeechLM", "SpeechLMProcessor"]:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: no model here; train one with 'vtb train recipes/demo.yaml', "
            f"or name a model's folder with --model"
        )
    from voicetextblender.model.modeling import SpeechLM
    from voicetextblender.model.processing import SpeechLMProcessor

    return SpeechLM.from_pretrained(folder), SpeechLMProcessor.from_pretrained(folder)


def _answer(pieces: Iterator[str]) -> None:
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _note(text: str) -> None:
    """Write to standard error, so that standard output holds nothing but results."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
