"""The verbs that make training conversations: `vtb synth asr`."""

from pathlib import Path
from typing import Annotated

import typer

from voicetextblender.cli.common import note

app = typer.Typer(no_args_is_help=True, help="Make training conversations from text.")


@app.command("asr")
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
    note(f"Read them back as '{out}/*.jsonl'; what was dropped is in {out / 'report.json'}")
