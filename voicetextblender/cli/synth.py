"""The verbs that make training conversations: `vtb synth asr`, `ast`, `sqa`, `mixed` and others."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voicetextblender.cli.common import note

if TYPE_CHECKING:
    from voicetextblender.chat import Conversation
    from voicetextblender.synth.plan import Plan

app = typer.Typer(no_args_is_help=True, help="Make training conversations.")

Out = Annotated[Path, typer.Option(help="Folder for the conversations.", metavar="DIR")]
Voices = Annotated[
    list[str] | None,
    typer.Option(
        help="hibari, kokoro:NAME, flite:NAME, espeak:LANG or http://HOST/v1#NAME; repeatable."
    ),
]
WriterName = Annotated[
    str, typer.Option(help="Language model: a part, a folder, or http://HOST/v1#MODEL.")
]
Language = Annotated[str, typer.Option(help="What the text is in, such as en.")]
LongestS = Annotated[
    float | None, typer.Option(help="Clips of 1 to this many seconds, at most 30.")
]
Augment = Annotated[bool, typer.Option("--augment", help="Add rooms, noise, telephones, codecs.")]
Check = Annotated[
    bool, typer.Option("--check", help="Keep what a recogniser hears as it was written.")
]
RecogniserName = Annotated[
    str, typer.Option(help="For --check: a Whisper part, or http://HOST/v1#MODEL.")
]
MaxWer = Annotated[
    float, typer.Option(help="For --check: share of words that may be heard otherwise.", min=0)
]
Varied = Annotated[
    bool, typer.Option("--varied", help="Many wordings of the request, not the paper's one.")
]
MaxDrop = Annotated[float, typer.Option(help="Share of items that may fail.", min=0, max=1)]
Workers = Annotated[int, typer.Option(help="Processes.", min=1)]
Seed = Annotated[int, typer.Option(help="Decides all that is random.", min=0)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make a few, keep none, and say what all would come to.")
]


@app.command("asr")
def synth_asr(
    sentences: Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")],
    out: Out,
    longest_run: Annotated[int, typer.Option(help="Most sentences in one clip.", min=1)] = 4,
    voice: Voices = None,
    language: Language = "en",
    longest_s: LongestS = None,
    varied: Varied = False,
    augment: Augment = False,
    check: Check = False,
    recogniser: RecogniserName = "whisper-base",
    max_wer: MaxWer = 0.3,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have sentences spoken by voices, with their transcripts.

    Example: vtb synth asr data/text/sentences.en.txt.gz --out runs/spoken --voice flite:slt
    """
    from voicetextblender.synth.asr import Speaking, SpokenSentences
    from voicetextblender.synth.sources import read_sentences

    spoken = SpokenSentences(
        read_sentences(sentences),
        voices=tuple(voice or ["hibari"]),
        lang=language,
        wording="varied" if varied else "paper",
        longest_run=longest_run,
        longest_s=longest_s,
        augment=float(augment),
        check=recogniser if check else None,
        max_wer=max_wer,
        seed=seed,
    )
    _run(Speaking(spoken), "speaking", out, workers, max_drop, dry_run)


@app.command("ast")
def synth_ast(
    pairs: Annotated[
        Path, typer.Argument(help="Sentence, tab, translation, on each line.", metavar="TSV")
    ],
    out: Out,
    languages: Annotated[
        str, typer.Option(help="Languages of the two columns; the first is spoken.")
    ] = "en:de",
    swap: Annotated[bool, typer.Option("--swap", help="Speak the second column.")] = False,
    voice: Voices = None,
    longest_run: Annotated[int, typer.Option(help="Most sentences in one clip.", min=1)] = 1,
    varied: Varied = False,
    augment: Augment = False,
    check: Check = False,
    recogniser: RecogniserName = "whisper-base",
    max_wer: MaxWer = 0.3,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have one side of parallel text spoken, with the other as its translation.

    Example: vtb synth ast pairs.tsv.gz --languages en:de --voice hibari --out runs/ast-en-de
    """
    from voicetextblender.synth.asr import Speaking, SpokenSentences
    from voicetextblender.synth.sources import read_pairs

    columns = languages.split(":")
    if len(columns) != 2:
        raise ValueError(f"--languages is '{languages}'; write two codes, such as en:de")
    spoken_lang, target = reversed(columns) if swap else columns
    both = read_pairs(pairs, spoken=int(swap))
    spoken = SpokenSentences(
        tuple(said for said, _ in both),
        translations=tuple(other for _, other in both),
        target=target,
        voices=tuple(voice or (["hibari"] if spoken_lang == "en" else [f"espeak:{spoken_lang}"])),
        lang=spoken_lang,
        wording="varied" if varied else "paper",
        longest_run=longest_run,
        augment=float(augment),
        check=recogniser if check else None,
        max_wer=max_wer,
        seed=seed,
    )
    _run(Speaking(spoken), "speaking", out, workers, max_drop, dry_run)


@app.command("translate")
def synth_translate(
    clips: Annotated[
        str, typer.Argument(help="JSONL of recordings with their words.", metavar="CLIPS")
    ],
    out: Out,
    target: Annotated[str, typer.Option(help="Language to translate into, such as de.")],
    writer: WriterName = "qwen2.5-1.5b",
    varied: Varied = False,
    max_drop: MaxDrop = 0.3,
    workers: Workers = 2,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have a language model translate what is said in recordings that you have.

    Example: vtb synth translate data/asr-en.jsonl --target de --out data/ast-en-de
    """
    from voicetextblender.synth.sources import read_clips
    from voicetextblender.synth.translate import Translations

    wording = "varied" if varied else "paper"
    plan = Translations(read_clips(clips, out, least_words=3), writer, target, wording, seed)
    _run(plan, "translating", out, workers, max_drop, dry_run)


@app.command("sqa")
def synth_sqa(
    clips: Annotated[
        str, typer.Argument(help="JSONL of recordings with their words.", metavar="CLIPS")
    ],
    out: Out,
    writer: WriterName = "qwen2.5-0.5b",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="factual, inferential, yes-no, summary, format, unanswerable or distilled; "
            "repeatable."
        ),
    ] = None,
    distil: Annotated[
        str | None,
        typer.Option(help="The model to be trained: it answers open questions itself."),
    ] = None,
    per_clip: Annotated[int, typer.Option(help="Questions about each recording.", min=1)] = 1,
    max_drop: MaxDrop = 0.5,
    workers: Workers = 1,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have a language model ask and answer questions about recordings that you have.

    Example: vtb synth sqa 'data/asr-*.jsonl' --out data/sqa --writer http://localhost:8000/v1#qwen
    """
    from typing import cast

    from voicetextblender.synth.sources import read_clips
    from voicetextblender.synth.sqa import KINDS, Kind, Sqa, question_about

    kinds = dict.fromkeys([*(kind or KINDS), *(["distilled"] if distil else [])])
    plan = Sqa(
        read_clips(clips, out),
        writer,
        kinds=cast("tuple[Kind, ...]", tuple(kinds)),
        distil=distil,
        per_clip=per_clip,
        seed=seed,
    )
    _run(plan, "asking", out, workers, max_drop, dry_run, question_about)


@app.command("mixed")
def synth_mixed(
    chats: Annotated[str, typer.Argument(help="JSONL of text conversations.", metavar="CHATS")],
    out: Out,
    voice: Voices = None,
    language: Language = "en",
    variants: Annotated[int, typer.Option(help="Made of each conversation.", min=1)] = 2,
    augment: Augment = False,
    check: Check = False,
    recogniser: RecogniserName = "whisper-base",
    max_wer: MaxWer = 0.3,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have parts of what users typed spoken by voices; code, tables and links stay text.

    Example: vtb synth mixed data/text/chat.jsonl --voice hibari --voice flite:slt --out data/mixed
    """
    from voicetextblender.synth.mixed import Mixed
    from voicetextblender.synth.sources import read_chats

    found = read_chats(chats)
    plan = Mixed(
        found,
        voices=tuple(voice or ["hibari"]),
        lang=language,
        variants=variants,
        augment=float(augment),
        check=recogniser if check else None,
        max_wer=max_wer,
        seed=seed,
    )
    if left_out := len(found) - len(plan.chats):
        note(f"{left_out} of {len(found)} conversations hold no sentence that can be spoken")
    _run(plan, "speaking", out, workers, max_drop, dry_run)


@app.command("chat")
def synth_chat(
    out: Out,
    writer: WriterName = "smollm2-135m",
    number: Annotated[int, typer.Option(help="Conversations.", min=1)] = 1000,
    most_turns: Annotated[int, typer.Option(help="Most questions in one.", min=1)] = 2,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL whose first user turns begin the conversations.")
    ] = None,
    language: Language = "en",
    max_drop: MaxDrop = 0.5,
    workers: Workers = 1,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Have a language model ask and answer itself, so that training keeps it as it was.

    Example: vtb synth chat --writer smollm2-135m --number 500 --out data/chat
    """
    from voicetextblender.synth.chats import Chats, first_question
    from voicetextblender.synth.sources import read_chats

    begun = read_chats(prompts) if prompts else ()
    plan = Chats(writer, number, begun, most_turns=most_turns, lang=language, seed=seed)
    _run(plan, "writing", out, workers, max_drop, dry_run, first_question)


@app.command("robust")
def synth_robust(
    sentences: Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")],
    out: Out,
    number: Annotated[int, typer.Option(help="Conversations.", min=1)] = 500,
    voice: Voices = None,
    language: Language = "en",
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Make silence, noise, music, speech that breaks off and audio that is missing, with honest
    answers.

    Example: vtb synth robust data/text/sentences.en.txt.gz --number 300 --out data/robust
    """
    from voicetextblender.synth.robust import Robust
    from voicetextblender.synth.sources import read_sentences

    found = read_sentences(sentences)
    plan = Robust(found, number, tuple(voice or ["hibari"]), lang=language, seed=seed)
    _run(plan, "making", out, workers, max_drop, dry_run)


def _run(
    plan: "Plan",
    title: str,
    out: Path,
    workers: int,
    max_drop: float,
    dry_run: bool,
    same: "Callable[[Conversation], str] | None" = None,
) -> None:
    from voicetextblender.progress import progress_bar
    from voicetextblender.synth.plan import estimate, run

    if dry_run:
        print(estimate(plan, workers))
        return
    with progress_bar(title) as progress:
        for done, total in run(plan, out, workers, max_drop, same=same):
            progress(done / total)
    note(f"Read them back as '{out}/*.jsonl'; what was dropped is in {out / 'report.json'}")
