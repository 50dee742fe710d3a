"""The verbs that look after conversations: `vtb data import`, `inspect`, `view`, `card`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicetextblender.cli.common import note

if TYPE_CHECKING:
    from voicetextblender.prompt import Prompter

app = typer.Typer(no_args_is_help=True, help="Conversations: import them, look at them.")

ConversationPaths = Annotated[
    list[str], typer.Argument(help="JSONL files or globs of conversations.", metavar="PATH…")
]
TokenizerOption = Annotated[
    str | None, typer.Option(help="Language model whose tokens to use.", metavar="NAME")
]


@app.command("import")
def import_(
    kind: Annotated[
        str,
        typer.Argument(
            help="hf, lhotse, nemo, kaldi, commonvoice, ljspeech, messages, folder, voicebench, "
            "airbench or asterisk.",
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
    note(f"{report.kept} kept, {report.hours:.2f} h, in {out}")
    for reason, count in sorted(report.dropped.items()):
        note(f"  {count} dropped: {reason}")


@app.command("inspect")
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


@app.command()
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
    note(f"{shown} conversations in {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
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
    note(f"The card is {out}; add what the data cannot say of itself")


def _prompter(name: str) -> "Prompter":
    from transformers import AutoTokenizer

    from voicetextblender.model.parts import resolve
    from voicetextblender.prompt import Prompter

    return Prompter(AutoTokenizer.from_pretrained(resolve(name)))
