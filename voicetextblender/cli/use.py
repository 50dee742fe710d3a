"""The verbs that use a model: `vtb transcribe`, `translate`, `chat`, `serve`."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicetextblender.cli.common import DEFAULT_MODEL, ModelOption, load_model, note

if TYPE_CHECKING:
    import numpy as np

    from voicetextblender.serve.config import EngineConfig
    from voicetextblender.serve.engine import Engine
    from voicetextblender.serve.transcribe import Task, Transcript

SOUND = {
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".opus",
    ".m4a",
    ".aac",
    ".mp4",
    ".webm",
    ".g722",
    ".aiff",
}


class Format(StrEnum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


class Precision(StrEnum):
    """How the language model's weights are kept."""

    MODEL = "model"
    INT8 = "int8"


class Work(StrEnum):
    """Who does the work of a server."""

    OWN = "own"
    VLLM = "vllm"


Recordings = Annotated[
    list[str] | None,
    typer.Argument(help="Recordings, folders of them, or - for standard input.", metavar="FILE…"),
]
Record = Annotated[bool, typer.Option("--record", help="Listen to the microphone.")]
FormatOption = Annotated[Format, typer.Option(help="How to write the transcript.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Of the LLM's weights: as they are, or int8.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder for one file per recording.", metavar="DIR")
]


def transcribe(
    files: Recordings = None,
    model: ModelOption = DEFAULT_MODEL,
    language: Annotated[str, typer.Option(help="What is spoken, such as en.")] = "en",
    names: Annotated[str, typer.Option(help="Names that may occur, with commas.")] = "",
    format: FormatOption = Format.TEXT,
    out: OutOption = None,
    record: Record = False,
    precision: PrecisionOption = Precision.MODEL,
) -> None:
    """Write down what is said in recordings of any length.

    Example: vtb transcribe talk.mp3 --format srt > talk.srt
    """
    from voicetextblender.serve.transcribe import Task

    listed = tuple(name.strip() for name in names.split(",") if name.strip())
    _write_down(files, model, Task(language, names=listed), format, out, record, precision)


def translate(
    files: Recordings = None,
    to: Annotated[str, typer.Option(help="Language to translate to, such as de.")] = "en",
    language: Annotated[str, typer.Option(help="What is spoken, such as en.")] = "en",
    model: ModelOption = DEFAULT_MODEL,
    format: FormatOption = Format.TEXT,
    out: OutOption = None,
    record: Record = False,
    precision: PrecisionOption = Precision.MODEL,
) -> None:
    """Translate what is said in recordings of any length.

    Example: vtb translate talk.mp3 --to de
    """
    from voicetextblender.serve.transcribe import Task

    _write_down(files, model, Task(language, to), format, out, record, precision)


def _write_down(
    files: list[str] | None,
    model: Path,
    task: "Task",
    format: Format,
    out: Path | None,
    record: bool,
    precision: Precision,
) -> None:
    """Transcribe or translate; nothing but results goes to standard output."""
    task.instruction()  # an unknown language is an error before the model is loaded
    sources = _recordings(files or [])
    if not sources and not record:
        raise ValueError("no recording given; name files or folders, or use --record")
    engine = _engine(model, precision)
    from voicetextblender.progress import progress_bar
    from voicetextblender.serve.transcribe import to_srt, to_vtt, transcribe

    writers: dict[Format, Callable[[Transcript], str]] = {
        Format.TEXT: lambda t: t.text + "\n",
        Format.JSON: lambda t: json.dumps(t.to_json(), ensure_ascii=False) + "\n",
        Format.SRT: to_srt,
        Format.VTT: to_vtt,
    }
    if record:
        _listen(engine, task)
    failed = False
    for source in sources:
        try:
            with progress_bar(source) as progress:
                data = sys.stdin.buffer.read() if source == "-" else source
                text = writers[format](transcribe(engine, data, task, progress))
        except (ValueError, OSError) as error:
            # One bad file does not lose the others.
            failed = True
            note(f"Error: {error}")
            continue
        if out is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            out.mkdir(parents=True, exist_ok=True)
            suffix = ".txt" if format is Format.TEXT else f".{format}"
            (out / f"{Path(source).name}{suffix}").write_text(text, encoding="utf-8")
    engine.close()
    if failed:
        raise typer.Exit(1)


def _recordings(files: list[str]) -> list[str]:
    """Return the files, and of each folder the sound files in it. Raises ValueError."""
    found: list[str] = []
    for file in files:
        if not Path(file).is_dir():
            found.append(file)
            continue
        inside = sorted(str(p) for p in Path(file).rglob("*") if p.suffix.lower() in SOUND)
        if not inside:
            raise ValueError(f"{file}: no recordings in this folder; it must hold {sorted(SOUND)}")
        found += inside
    return found


def _listen(engine: "Engine", task: "Task") -> None:
    """Write down what the microphone hears, piece by piece, until Enter."""
    from voicetextblender.serve.transcribe import segments_of

    for segment in segments_of(engine, _until_enter(), task, ahead=1):
        print(segment.text, flush=True)


def _until_enter() -> "Iterator[np.ndarray]":
    """Yield what the microphone hears until somebody presses Enter."""
    from voicetextblender.serve.microphone import record

    note("Listening; press Enter to stop")
    enter = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        enter.set()

    threading.Thread(target=wait, daemon=True).start()
    return record(enter.is_set)


def chat(
    model: ModelOption = DEFAULT_MODEL,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy; 1 is lively.")] = 0.0,
    precision: PrecisionOption = Precision.MODEL,
) -> None:
    """Talk with a model: type, speak with /record, or add recordings with /audio FILE.

    Example: vtb chat --model runs/demo/model
    """
    engine = _engine(model, precision)
    import numpy as np

    from voicetextblender.model.generate import Decoding
    from voicetextblender.serve.chat import HELP, Chat

    talk = Chat(engine, Decoding(max_new_tokens, temperature))
    note(HELP)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            break
        try:
            match line.split(maxsplit=1):
                case []:
                    if talk.pending:
                        _answer(talk.say(""))
                case ["/quit"]:
                    break
                case ["/new"]:
                    talk.new()
                case ["/record"]:
                    spoken = np.concatenate(list(_until_enter()) or [np.zeros(0, np.float32)])
                    _added(talk.add_clip(spoken, "microphone"), talk.heard())
                case ["/audio", path]:
                    _added(talk.add_audio(path), talk.heard())
                case [word, *_] if word.startswith("/"):
                    note(f"'{word}' is no command; {HELP}")
                case _:
                    _answer(talk.say(line))
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            note(f"Error: {error}")
    engine.close()


def _added(seconds: float, heard: str | None) -> None:
    words = (
        "" if heard is None else f", heard as “{heard}”" if heard else ", in which nobody speaks"
    )
    note(f"{seconds:.1f} s added{words}; now type a message, or just Enter")


def _answer(pieces: Iterator[str]) -> None:
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def serve(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings, such as port=80 or engine.max_running=4.", metavar="[KEY=VALUE]…"
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    name: Annotated[str, typer.Option(help="What clients call the model.")] = "voicetextblender",
    by: Annotated[
        Work, typer.Option("--engine", help="vllm serves exported models; see make vllm.")
    ] = Work.OWN,
) -> None:
    """Serve a model over HTTP as OpenAI does; API keys may be given in VTB_API_KEYS.

    Example: vtb serve --model runs/demo/model port=8080 engine.precision=int8
    """
    import os

    from voicetextblender.serve.config import ServerConfig
    from voicetextblender.settings import parse_settings

    given = list(settings or [])
    if keys := os.environ.get("VTB_API_KEYS"):  # out of sight of those who list processes
        given.append(f"api_keys={json.dumps([key.strip() for key in keys.split(',')])}")
    wanted = parse_settings(ServerConfig, given)
    if by is Work.VLLM:
        from voicetextblender.serve.plugin import command

        if wanted.api_keys:
            os.environ["VLLM_API_KEY"] = wanted.api_keys[0]
        words = command(model, wanted.host, wanted.port, name, [])
        os.execv(words[0], words)
    try:
        from voicetextblender.serve.server import serve
    except ImportError as error:
        raise ValueError(
            f"vtb serve needs {error.name}; install it with: pip install 'voicetextblender[serve]'"
        ) from None
    engine = _engine(model, Precision.MODEL, wanted.engine, name)
    scheme = "https" if wanted.tls_cert else "http"
    note(f"{name} is served at {scheme}://{wanted.host}:{wanted.port}/v1 (Ctrl-C ends)")
    serve(engine, wanted)


def _engine(
    model: Path,
    precision: Precision,
    settings: "EngineConfig | None" = None,
    name: str = "voicetextblender",
) -> "Engine":
    """Load a model and start its engine. Raises ValueError."""
    speech_lm, processor = load_model(model)
    from voicetextblender.serve.config import EngineConfig
    from voicetextblender.serve.engine import Engine

    settings = settings or EngineConfig.model_validate({"precision": str(precision)})
    return Engine(speech_lm, processor, settings, name)


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (transcribe, translate, chat, serve):
        app.command()(verb)
