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
    from voicetextblender.prompt import Prompter

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
ConversationPaths = Annotated[
    list[str], typer.Argument(help="JSONL files or globs of conversations.", metavar="PATH…")
]
TokenizerOption = Annotated[
    str | None, typer.Option(help="Language model whose tokens to use.", metavar="NAME")
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
    kind: Annotated[
        str,
        typer.Argument(
            help="hf, lhotse, nemo, kaldi, commonvoice, ljspeech, messages, folder or asterisk.",
            metavar="KIND",
        ),
    ],
    source: Annotated[
        Path | None, typer.Argument(help="File or folder to import.", metavar="SOURCE")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the conversations.", metavar="DIR")
    ] = None,
    lang: Annotated[
        str | None, typer.Option(help="What is spoken, where the source does not say it.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What it is translated to, likewise.", metavar="LANG")
    ] = None,
    license: Annotated[str | None, typer.Option(help="The licence, likewise.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the transcripts, if it has an unusual name.")
    ] = None,
) -> None:
    """Make conversations from a corpus, or from chats with audio; recordings stay where they are.

    Example: vtb data import kaldi corpus/data/train --out data/mine --lang en
    """
    from voicetextblender.data.importers import import_corpus
    from voicetextblender.data.importing import Given

    if kind == "asterisk":  # what is installed needs no name, so DIR may stand in its place
        source, out = (source, out) if out else (None, source)
    given = Given(lang, target, license, text_column)
    report = import_corpus(kind, source, out, given)
    _note(f"{report.kept} kept, {report.hours:.2f} h, in {out}")
    for reason, count in sorted(report.dropped.items()):
        _note(f"  {count} dropped: {reason}")


@data_app.command("inspect")
def inspect_(
    paths: ConversationPaths,
    against: Annotated[
        str | None, typer.Option(help="Test set that must not be in it.", metavar="JSONL")
    ] = None,
    tokenizer: TokenizerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not tables.")] = False,
) -> None:
    """Count, measure and check conversations.

    Example: vtb data inspect data/asterisk/train.jsonl --against data/asterisk/test.jsonl
    """
    from rich.console import Console

    from voicetextblender.data.inspect import inspect, read_held_out, show
    from voicetextblender.progress import progress_bar

    with progress_bar("inspecting") as progress:
        found = inspect(
            paths,
            _prompter(tokenizer) if tokenizer else None,
            f"tokens of {tokenizer}" if tokenizer else "words",
            read_held_out(against) if against else None,
            progress,
        )
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    else:
        show(found, Console())


@data_app.command()
def view(
    paths: ConversationPaths,
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="FILE")],
    limit: Annotated[int, typer.Option(help="Most conversations to show.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Decides which are shown.", min=0)] = 0,
    tokenizer: TokenizerOption = None,
) -> None:
    """Write one offline page to listen to conversations and read them.

    Example: vtb data view data/asterisk/train.jsonl --tokenizer smollm2-135m --out view.html
    """
    from voicetextblender.data.view import write_view
    from voicetextblender.progress import progress_bar

    prompter = _prompter(tokenizer) if tokenizer else None
    with progress_bar("writing the page") as progress:
        shown = write_view(paths, out, limit, seed, prompter, progress)
    _note(f"{shown} conversations in {out} ({out.stat().st_size / 1e6:.1f} MB)")


@data_app.command()
def card(
    paths: ConversationPaths,
    out: Annotated[Path, typer.Option(help="Markdown file to write.", metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="What the data is called.")] = None,
) -> None:
    """Write a data card in the Hugging Face format, from what the data says of itself.

    Example: vtb data card 'runs/demo/spoken/*.jsonl' --out runs/demo/spoken/README.md
    """
    from voicetextblender.data.card import write_card
    from voicetextblender.progress import progress_bar

    with progress_bar("inspecting") as progress:
        write_card(paths, out, name, progress)
    _note(f"The card is {out}; add what the data cannot say of itself")


@synth_app.command("asr")
def synth_asr(
    sentences: Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")],
    out: Annotated[Path, typer.Option(help="Folder for the conversations.", metavar="DIR")],
    longest_run: Annotated[int, typer.Option(help="Most sentences in one clip.", min=1)] = 4,
    voice: Annotated[
        list[str] | None,
        typer.Option(
            help="hibari, kokoro:NAME, flite:NAME, espeak:LANG or http://HOST/v1#NAME; repeatable."
        ),
    ] = None,
    language: Annotated[str, typer.Option(help="What the text is in, such as en.")] = "en",
    longest_s: Annotated[
        float | None, typer.Option(help="Clips of 1 to this many seconds, at most 30.")
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Add rooms, noise, telephones and codecs.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Keep what a recogniser hears as it was written.")
    ] = False,
    recogniser: Annotated[
        str, typer.Option(help="For --check: a Whisper part, or http://HOST/v1#MODEL.")
    ] = "whisper-base",
    max_wer: Annotated[
        float, typer.Option(help="For --check: share of words that may be heard otherwise.", min=0)
    ] = 0.3,
    max_drop: Annotated[
        float, typer.Option(help="Share of clips that may fail.", min=0, max=1)
    ] = 0.1,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Decides all that is random.", min=0)] = 0,
) -> None:
    """Have sentences spoken by voices, with their transcripts.

    Example: vtb synth asr data/text/sentences.en.txt.gz --out runs/spoken --voice flite:slt
    """
    from voicetextblender.progress import progress_bar
    from voicetextblender.synth.asr import SpokenSentences, read_sentences, speak

    spoken = SpokenSentences(
        read_sentences(sentences),
        voices=tuple(voice or ["hibari"]),
        lang=language,
        longest_run=longest_run,
        longest_s=longest_s,
        augment=float(augment),
        check=recogniser if check else None,
        max_wer=max_wer,
        seed=seed,
    )
    with progress_bar("speaking") as progress:
        for done, total in speak(spoken, out, workers, max_drop):
            progress(done / total)
    _note(f"Read them back as '{out}/*.jsonl'; what was dropped is in {out / 'report.json'}")


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


def _prompter(name: str) -> "Prompter":
    from transformers import AutoTokenizer

    from voicetextblender.model.parts import resolve
    from voicetextblender.prompt import Prompter

    return Prompter(AutoTokenizer.from_pretrained(resolve(name)))


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
