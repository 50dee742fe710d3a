"""The verbs that make training conversations: `vtb synth asr`, `ast`, `sqa`, `mixed` and others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from voicetextblender.cli.common import note
from voicetextblender.cli.options import grouped

if TYPE_CHECKING:
    from voicetextblender.chat import Conversation
    from voicetextblender.synth.asr import SpokenSentences
    from voicetextblender.synth.mixed import Form
    from voicetextblender.synth.plan import Plan
    from voicetextblender.synth.speakers import Speakers
    from voicetextblender.synth.sqa import Kind

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Make training conversations."
)

Text = Annotated[Path, typer.Argument(help="Text, one sentence a line.", metavar="TEXT")]
ClipsOf = Annotated[
    str, typer.Argument(help="JSONL of recordings with their words.", metavar="CLIPS")
]
Out = Annotated[Path, typer.Option(help="Folder for the conversations.", metavar="DIR")]
Workers = Annotated[int, typer.Option(help="Processes.", min=1)]
On = Annotated[
    Literal["processes", "ray"],
    typer.Option(help="Processes of this machine, or Ray, where all nodes see DIR."),
]
MaxDrop = Annotated[float, typer.Option(help="Share of items that may fail.", min=0, max=1)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make a few, keep none, and say what all would come to.")
]
Voices = Annotated[
    list[str] | None,
    typer.Option(
        help="hibari, kokoro:NAME, flite:NAME, espeak:LANG or http://HOST/v1#NAME; repeatable."
    ),
]
Language = Annotated[str, typer.Option(help="What the text is in, such as en.")]
LongestRun = Annotated[int, typer.Option(help="Most sentences in one clip.", min=1)]
WriterName = Annotated[
    str, typer.Option(help="Language model: a part, a folder, or http://HOST/v1#MODEL.")
]
Varied = Annotated[
    bool, typer.Option("--varied", help="Many wordings of the request, not the paper's one.")
]
Warp = Annotated[
    float, typer.Option(help="Change voices by up to this share: 0.2 makes many.", min=0, max=1)
]
Augment = Annotated[bool, typer.Option("--augment", help="Add rooms, noise, telephones, codecs.")]
Clean = Annotated[
    float, typer.Option(help="For --augment: share of clips left alone.", min=0, max=1)
]


@dataclass(frozen=True)
class Running:
    """How a plan is run."""

    out: Out
    workers: Workers = 2
    on: On = "processes"
    max_drop: MaxDrop = 0.1
    seed: Annotated[int, typer.Option(help="Decides all that is random.", min=0)] = 0
    dry_run: DryRun = False


@dataclass(frozen=True)
class Writing(Running):
    """How a plan is run in which a language model writes: it fails more often."""

    workers: Workers = 1
    max_drop: MaxDrop = 0.5


@dataclass(frozen=True)
class Speaking:
    """Who speaks, in which conditions, and who checks it."""

    voice: Voices = None
    warp: Warp = 0.0
    augment: Augment = False
    clean: Clean = 0.0
    check: Annotated[
        bool, typer.Option("--check", help="Keep what a recogniser hears as it was written.")
    ] = False
    recogniser: Annotated[
        str, typer.Option(help="For --check: a Whisper part, or http://HOST/v1#MODEL.")
    ] = "whisper-base"
    max_wer: Annotated[
        float, typer.Option(help="For --check: share of words that may be heard otherwise.", min=0)
    ] = 0.3

    def speakers(self, lang: str) -> "Speakers":
        """Return them; by default one voice that speaks the language."""
        from voicetextblender.synth.speakers import Speakers

        return Speakers(
            tuple(self.voice or (["hibari"] if lang == "en" else [f"espeak:{lang}"])),
            lang,
            warp=self.warp,
            augment=float(self.augment),
            clean=self.clean,
            check=self.recogniser if self.check else None,
            max_wer=self.max_wer,
        )


@dataclass(frozen=True)
class Clipping:
    """How text becomes clips, and what is said of it."""

    varied: Varied = False
    longest_s: Annotated[
        float | None, typer.Option(help="Clips of 1 to this many seconds, at most 30.")
    ] = None
    clips: Annotated[int | None, typer.Option(help="Only so many clips, at random.", min=1)] = None
    per_shard: Annotated[int, typer.Option(help="Clips in a shard.", min=1)] = 100
    source: Annotated[
        str | None, typer.Option(help="Where the text is from, for the data card.")
    ] = None
    license: Annotated[str | None, typer.Option(help="The licence of the text, likewise.")] = None

    def applied(self, spoken: "SpokenSentences", seed: int) -> "SpokenSentences":
        """Return sentences to be spoken as these options say."""
        from dataclasses import replace

        about = (("source", self.source), ("license", self.license))
        return replace(
            spoken,
            wording="varied" if self.varied else "paper",
            longest_s=self.longest_s,
            clips=self.clips,
            about=tuple((key, value) for key, value in about if value),
            per_shard=self.per_shard,
            seed=seed,
        )


@app.command("asr")
@grouped
def synth_asr(
    sentences: Text,
    how: Running,
    speaking: Speaking,
    clipping: Clipping,
    language: Language = "en",
    longest_run: LongestRun = 4,
) -> None:
    """Have sentences spoken by voices, with their transcripts.

    Example: vtb synth asr data/text/sentences.en.txt.gz --out runs/spoken --voice flite:slt
    """
    from voicetextblender.synth import asr
    from voicetextblender.synth.sources import read_sentences

    spoken = asr.SpokenSentences(
        read_sentences(sentences), speaking.speakers(language), longest_run=longest_run
    )
    plan = asr.Speaking(clipping.applied(spoken, how.seed))
    _run(plan, "speaking", how, per_shard=clipping.per_shard)


@app.command("ast")
@grouped
def synth_ast(
    pairs: Annotated[
        Path, typer.Argument(help="Sentence, tab, translation, on each line.", metavar="TSV")
    ],
    how: Running,
    speaking: Speaking,
    clipping: Clipping,
    languages: Annotated[
        str, typer.Option(help="Languages of the two columns; the first is spoken.")
    ] = "en:de",
    swap: Annotated[bool, typer.Option("--swap", help="Speak the second column.")] = False,
    longest_run: LongestRun = 1,
) -> None:
    """Have one side of parallel text spoken, with the other as its translation.

    Example: vtb synth ast pairs.tsv.gz --languages en:de --voice hibari --out runs/ast-en-de
    """
    from voicetextblender.synth import asr
    from voicetextblender.synth.sources import read_pairs

    columns = languages.split(":")
    if len(columns) != 2:
        raise ValueError(f"--languages is '{languages}'; write two codes, such as en:de")
    spoken_lang, target = reversed(columns) if swap else columns
    both = read_pairs(pairs, spoken=int(swap))
    spoken = asr.SpokenSentences(
        tuple(said for said, _ in both),
        speaking.speakers(spoken_lang),
        translations=tuple(other for _, other in both),
        target=target,
        longest_run=longest_run,
    )
    plan = asr.Speaking(clipping.applied(spoken, how.seed))
    _run(plan, "speaking", how, per_shard=clipping.per_shard)


@app.command("translate")
@grouped
def synth_translate(
    clips: ClipsOf,
    how: Writing,
    target: Annotated[str, typer.Option(help="Language to translate into, such as de.")],
    writer: WriterName = "qwen2.5-1.5b",
    varied: Varied = False,
) -> None:
    """Have a language model translate what is said in recordings that you have.

    Example: vtb synth translate data/asr-en.jsonl --target de --out data/ast-en-de
    """
    from voicetextblender.synth.sources import read_clips
    from voicetextblender.synth.translate import Translations

    wording = "varied" if varied else "paper"
    found = read_clips(clips, how.out, least_words=3)
    _run(Translations(found, writer, target, wording, how.seed), "translating", how)


@app.command("sqa")
@grouped
def synth_sqa(
    clips: ClipsOf,
    how: Writing,
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
) -> None:
    """Have a language model ask and answer questions about recordings that you have.

    Example: vtb synth sqa 'data/asr-*.jsonl' --out data/sqa --writer http://localhost:8000/v1#qwen
    """
    from voicetextblender.synth.sources import read_clips
    from voicetextblender.synth.sqa import KINDS, Sqa, question_about

    kinds = dict.fromkeys([*(kind or KINDS), *(["distilled"] if distil else [])])
    plan = Sqa(
        read_clips(clips, how.out),
        writer,
        kinds=cast("tuple[Kind, ...]", tuple(kinds)),
        distil=distil,
        per_clip=per_clip,
        seed=how.seed,
    )
    _run(plan, "asking", how, question_about)


@app.command("mixed")
@grouped
def synth_mixed(
    chats: Annotated[str, typer.Argument(help="JSONL of text conversations.", metavar="CHATS")],
    how: Running,
    speaking: Speaking,
    language: Language = "en",
    variants: Annotated[int, typer.Option(help="Made of each conversation.", min=1)] = 2,
    form: Annotated[
        list[str] | None,
        typer.Option(
            help="What is spoken: run (of sentences), spans, turn (a whole one) or turns; "
            "repeatable."
        ),
    ] = None,
) -> None:
    """Have parts of what users typed spoken by voices; code, tables and links stay text.

    Example: vtb synth mixed data/text/chat.jsonl --voice hibari --voice flite:slt --out data/mixed
    """
    from voicetextblender.synth.mixed import FORMS, Mixed
    from voicetextblender.synth.sources import read_chats

    found = read_chats(chats)
    forms = cast("tuple[Form, ...]", tuple(form or FORMS))
    plan = Mixed(found, speaking.speakers(language), variants, forms, how.seed)
    if left_out := len(found) - len(plan.chats):
        note(f"{left_out} of {len(found)} conversations hold nothing that can be spoken so")
    _run(plan, "speaking", how)


@app.command("chat")
@grouped
def synth_chat(
    how: Writing,
    writer: WriterName = "smollm2-135m",
    number: Annotated[int, typer.Option(help="Conversations.", min=1)] = 1000,
    most_turns: Annotated[int, typer.Option(help="Most questions in one.", min=1)] = 2,
    longest_answer: Annotated[int, typer.Option(help="Tokens of an answer.", min=1)] = 400,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL whose first user turns begin the conversations.")
    ] = None,
    language: Language = "en",
) -> None:
    """Have a language model ask and answer itself, so that training keeps it as it was.

    Example: vtb synth chat --writer smollm2-135m --number 500 --out data/chat
    """
    from voicetextblender.synth.chats import Chats, first_question
    from voicetextblender.synth.sources import read_chats

    plan = Chats(
        writer,
        number,
        read_chats(prompts) if prompts else (),
        most_turns=most_turns,
        longest_answer=longest_answer,
        lang=language,
        seed=how.seed,
    )
    _run(plan, "writing", how, first_question)


@app.command("robust")
@grouped
def synth_robust(
    sentences: Text,
    how: Running,
    number: Annotated[int, typer.Option(help="Conversations.", min=1)] = 500,
    voice: Voices = None,
    language: Language = "en",
) -> None:
    """Make silence, noise, music, speech that breaks off and audio that is missing, with honest
    answers.

    Example: vtb synth robust data/text/sentences.en.txt.gz --number 300 --out data/robust
    """
    from voicetextblender.synth.robust import Robust
    from voicetextblender.synth.sources import read_sentences

    speakers = Speaking(voice).speakers(language)
    _run(Robust(read_sentences(sentences), number, speakers, how.seed), "making", how)


@app.command("vary")
@grouped
def synth_vary(
    clips: ClipsOf,
    how: Running,
    variants: Annotated[int, typer.Option(help="How often each is heard.", min=1)] = 2,
    longest_s: Annotated[
        float, typer.Option(help="Clips of a speaker are joined, up to this many seconds.", min=1)
    ] = 20.0,
    varied: Varied = False,
    warp: Warp = 0.0,
    augment: Augment = False,
    clean: Clean = 0.0,
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
        seed=how.seed,
    )
    _run(plan, "varying", how)


@app.command("run")
def synth_run(
    recipe: Annotated[
        Path, typer.Argument(help="YAML: a folder's name, and the verb with its options.")
    ],
    out: Out,
    workers: Workers = 2,
    on: On = "processes",
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
    how: Running,
    same: "Callable[[Conversation], str] | None" = None,
    per_shard: int = 100,
) -> None:
    from voicetextblender.progress import progress_bar
    from voicetextblender.synth.plan import estimate, run

    if how.dry_run:
        print(estimate(plan, how.workers))
        return
    with progress_bar(title) as progress:
        for done, total in run(plan, how.out, how.workers, how.max_drop, per_shard, same, how.on):
            progress(done / total, f"{done} of {total}")
    note(f"Read them back as '{how.out}/*.jsonl'; what was dropped is in {how.out / 'report.json'}")
