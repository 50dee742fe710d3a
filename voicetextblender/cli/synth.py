"""The verbs that make training conversations: `vtb synth asr`, `ast`, `sqa`, `mixed` and others."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from voicetextblender.cli.common import note

if TYPE_CHECKING:
    from voicetextblender.chat import Conversation
    from voicetextblender.synth.plan import Plan
    from voicetextblender.synth.workers import On

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Make training conversations."
)

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
Clean = Annotated[
    float, typer.Option(help="For --augment: share of clips left alone.", min=0, max=1)
]
Warp = Annotated[
    float, typer.Option(help="Change voices by up to this share: 0.2 makes many.", min=0, max=1)
]
Clips = Annotated[int | None, typer.Option(help="Only so many clips, at random.", min=1)]
Source = Annotated[str | None, typer.Option(help="Where the text is from, for the data card.")]
License = Annotated[str | None, typer.Option(help="The licence of the text, likewise.")]
PerShard = Annotated[int, typer.Option(help="Clips in a shard.", min=1)]
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
OnOption = Annotated[
    Literal["processes", "ray"],
    typer.Option(help="Processes of this machine, or Ray, where all nodes see DIR."),
]
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
    warp: Warp = 0.0,
    augment: Augment = False,
    clean: Clean = 0.0,
    check: Check = False,
    recogniser: RecogniserName = "whisper-base",
    max_wer: MaxWer = 0.3,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    on: OnOption = "processes",
    clips: Clips = None,
    source: Source = None,
    license: License = None,
    per_shard: PerShard = 100,
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
        warp=warp,
        augment=float(augment),
        clean=clean,
        check=recogniser if check else None,
        max_wer=max_wer,
        clips=clips,
        about=_about(source, license),
        per_shard=per_shard,
        seed=seed,
    )
    _run(Speaking(spoken), "speaking", out, workers, on, max_drop, dry_run, per_shard=per_shard)


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
    longest_s: LongestS = None,
    varied: Varied = False,
    warp: Warp = 0.0,
    augment: Augment = False,
    clean: Clean = 0.0,
    check: Check = False,
    recogniser: RecogniserName = "whisper-base",
    max_wer: MaxWer = 0.3,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    on: OnOption = "processes",
    clips: Clips = None,
    source: Source = None,
    license: License = None,
    per_shard: PerShard = 100,
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
        longest_s=longest_s,
        warp=warp,
        augment=float(augment),
        clean=clean,
        check=recogniser if check else None,
        max_wer=max_wer,
        clips=clips,
        about=_about(source, license),
        per_shard=per_shard,
        seed=seed,
    )
    _run(Speaking(spoken), "speaking", out, workers, on, max_drop, dry_run, per_shard=per_shard)


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
    on: OnOption = "processes",
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
    _run(plan, "translating", out, workers, on, max_drop, dry_run)


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
    on: OnOption = "processes",
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
    _run(plan, "asking", out, workers, on, max_drop, dry_run, question_about)


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
    on: OnOption = "processes",
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
    _run(plan, "speaking", out, workers, on, max_drop, dry_run)


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
    on: OnOption = "processes",
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
    _run(plan, "writing", out, workers, on, max_drop, dry_run, first_question)


@app.command("robust")
def synth_robust(
    sentences: Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")],
    out: Out,
    number: Annotated[int, typer.Option(help="Conversations.", min=1)] = 500,
    voice: Voices = None,
    language: Language = "en",
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    on: OnOption = "processes",
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
    _run(plan, "making", out, workers, on, max_drop, dry_run)


@app.command("vary")
def synth_vary(
    clips: Annotated[
        str, typer.Argument(help="JSONL of recordings with their words.", metavar="CLIPS")
    ],
    out: Out,
    variants: Annotated[int, typer.Option(help="How often each is heard.", min=1)] = 2,
    longest_s: Annotated[
        float, typer.Option(help="Clips of a speaker are joined, up to this many seconds.", min=1)
    ] = 20.0,
    varied: Varied = False,
    warp: Warp = 0.0,
    augment: Augment = False,
    clean: Clean = 0.0,
    max_drop: MaxDrop = 0.1,
    workers: Workers = 2,
    on: OnOption = "processes",
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Make more of few recordings: joined, as other speakers, under other conditions.

    Example: vtb synth vary data/asterisk/train.jsonl --warp 0.12 --augment --out runs/varied
    """
    from voicetextblender.synth.sources import read_recordings
    from voicetextblender.synth.vary import Variations

    plan = Variations(
        read_recordings(clips),
        variants,
        longest_s,
        warp=warp,
        augment=float(augment),
        clean=clean,
        wording="varied" if varied else "paper",
        seed=seed,
    )
    _run(plan, "varying", out, workers, on, max_drop, dry_run)


@app.command("run")
def synth_run(
    recipe: Annotated[
        Path, typer.Argument(help="YAML: a folder's name, and the verb with its options.")
    ],
    out: Out,
    workers: Workers = 2,
    on: OnOption = "processes",
    dry_run: DryRun = False,
) -> None:
    """Run the verbs of a recipe one after the other, each into its own folder of DIR.

    Example: vtb synth run recipes/data/speech-en.yaml --out runs/data/speech-en --dry-run
    """
    for name, words in read_steps(recipe):
        note(f"{out / name}: vtb synth {words[0]} {words[1]}")
        how = ["--out", str(out / name), "--workers", str(workers), "--on", on]
        how += ["--dry-run"] if dry_run else []
        try:
            app([*words, *how], prog_name="vtb synth")
        except SystemExit as ended:  # as a command always ends
            if ended.code:
                raise


def read_steps(recipe: Path) -> list[tuple[str, list[str]]]:
    """Return each folder's name and command line, the verb first. Raises ValueError."""
    import yaml

    try:
        steps = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{recipe}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        raise ValueError(f"{recipe}: must name folders, each with a verb and its options")
    verbs = {command.name for command in app.registered_commands} - {"run"}
    read = []
    for name, options in steps.items():
        named = verbs & options.keys()
        if len(named) != 1:
            raise ValueError(
                f"{recipe}: '{name}' must have one verb with what it is made from, such as "
                f"'asr: TEXT'; verbs are {', '.join(sorted(map(str, verbs)))}"
            )
        (verb,) = named
        words = [str(verb), *([str(options[verb])] if options[verb] is not None else [])]
        for key, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                if key != verb and each is not False:
                    option = f"--{key.replace('_', '-')}"
                    words += [option] if each is True else [option, str(each)]
        read.append((name, words))
    return read


def _run(
    plan: "Plan",
    title: str,
    out: Path,
    workers: int,
    on: "On",
    max_drop: float,
    dry_run: bool,
    same: "Callable[[Conversation], str] | None" = None,
    per_shard: int = 100,
) -> None:
    from voicetextblender.progress import progress_bar
    from voicetextblender.synth.plan import estimate, run

    if dry_run:
        print(estimate(plan, workers))
        return
    with progress_bar(title) as progress:
        for done, total in run(plan, out, workers, max_drop, per_shard, same, on):
            progress(done / total, f"{done} of {total}")
    note(f"Read them back as '{out}/*.jsonl'; what was dropped is in {out / 'report.json'}")


def _about(source: str | None, license: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((k, v) for k, v in (("source", source), ("license", license)) if v)
