"""Shards: the unit of work of the data factory, a tar of clips beside a JSONL of conversations.

A shard is made by one process, in one go, from its numbered items and the seed; it appears under
its name only when it is complete. So a run that is killed goes on with the shards that are missing,
and ends with the same bytes as one that never was. Items that cannot be made are left out, and
counted with their reason: each shard has its count beside it, and `report.json` has the sum.
"""

import errno
import fcntl
import io
import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from pydantic import TypeAdapter

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Conversation, parse_line, to_line
from voicetextblender.synth.workers import On, work

REPORT = "report.json"
PER_SHARD = 100

_PATIENCE_S = 3.0  # workers of a run that was killed hold its folder for half a second


@dataclass(frozen=True, slots=True)
class Speech:
    """A clip that was made: its name in the shard and its samples."""

    name: str
    samples: np.ndarray
    """(S,) float32 in [-1, 1]."""
    rate: int
    """Samples per second."""


@dataclass(frozen=True, slots=True)
class Made:
    """An item that was made: a conversation, and its clips that are named `SHARD.tar#NAME`."""

    conversation: Conversation
    """Its id ends in `-` and the item's number. It is counted by `meta.kind`, `voice` or `writer`,
    the first that is there."""
    clips: tuple[Speech, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that could not be made."""

    item: int
    by: str
    """What it would have been counted by."""
    reason: str
    """A few words, the same for all items of its kind."""
    why: str
    """What was wrong with this one."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the items of a shard, or of all."""

    recipe: str
    """Digest of the text and the settings."""
    made: dict[str, int]
    """How many, by kind, voice or writer."""
    dropped: tuple[Dropped, ...] = ()

    @property
    def num_items(self) -> int:
        return sum(self.made.values()) + len(self.dropped)


Make = Callable[[Sequence[int]], Iterable[Made | Dropped]]
"""Makes some items, each of them or what was wrong with it, in order."""

_REPORT = TypeAdapter(Report)


def shard_name(number: int) -> str:
    """Return the name, without suffix, of shard `number`."""
    return f"shard-{number:05d}"


def make_shards(
    out: Path,
    num_items: int,
    per_shard: int,
    make: Make,
    workers: int,
    *,
    recipe: str = "",
    max_drop: float = 0.1,
    same: Callable[[Conversation], str] | None = None,
    on: On = "processes",
) -> Iterator[tuple[int, int]]:
    """Make what is missing of `num_items` items under `out`, in `workers` processes.

    `make` must be picklable; `recipe` is a digest of all that decides what it makes. Of
    conversations for which `same` returns the same text, the first is kept. Yields (items done,
    items in all) whenever a shard is done, and writes `out/report.json`. Raises ValueError as soon
    as more than `max_drop` of all items are dropped, or if `out` holds another recipe's.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        ranges = [
            range(first, min(first + per_shard, num_items))
            for first in range(0, num_items, per_shard)
        ]
        reports = {n: report for n in range(len(ranges)) if (report := _read_report(out, n))}
        for report in reports.values():
            if report.recipe != recipe:
                raise ValueError(
                    f"{out}: holds clips made from other text or with other settings; name another "
                    f"folder, or delete this one"
                )
        _check(out, reports, recipe, num_items, max_drop)
        done = sum(len(ranges[n]) for n in reports)
        yield done, num_items
        missing = [n for n in range(len(ranges)) if n not in reports]
        task = _Task(out, ranges, make, recipe)
        for number, report in work(task, missing, workers, on):
            reports[number] = report
            _check(out, reports, recipe, num_items, max_drop)
            done += len(ranges[number])
            yield done, num_items
        if same:
            seen: set[str] = set()
            for n in sorted(reports):
                reports[n] = _without_repeats(out, n, reports[n], same, seen)
            _check(out, reports, recipe, num_items, max_drop)


@dataclass(frozen=True, slots=True)
class _Task:
    """Makes a shard by its number; picklable."""

    out: Path
    ranges: list[range]
    make: Make
    recipe: str

    def __call__(self, number: int) -> Report:
        try:
            return _make_shard(self.out, number, self.ranges[number], self.make, self.recipe)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ValueError(
                f"{self.out}: the disk is full; whole shards are kept, so make room and run it "
                f"again"
            ) from None


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold the folder against a second run, and remove what a killed one left half made."""
    folder = os.open(out, os.O_RDONLY)
    try:
        given_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > given_up:
                    raise ValueError(
                        f"{out}: another run is writing here; wait for it, or stop it"
                    ) from None
            time.sleep(0.1)
        _remove_drafts(out)
        try:
            yield
        finally:
            _remove_drafts(out)
    finally:
        os.close(folder)


def _remove_drafts(out: Path) -> None:
    for draft in out.glob(".*-*"):
        draft.unlink(missing_ok=True)


def _check(
    out: Path, reports: dict[int, Report], recipe: str, num_items: int, max_drop: float
) -> None:
    """Write the sum of the shards' reports. Raises ValueError if too much was dropped."""
    made = sum((Counter(report.made) for report in reports.values()), Counter())
    dropped = tuple(drop for n in sorted(reports) for drop in reports[n].dropped)
    counts = Counter((drop.by, drop.reason) for drop in dropped)
    summary = {
        "items": num_items,
        "made": dict(sorted(made.items())),
        "dropped": [
            {"by": by, "reason": reason, "count": count}
            for (by, reason), count in sorted(counts.items())
        ],
        "each": [asdict(drop) for drop in dropped],
    }
    draft = out / f".{REPORT}-{os.getpid()}"
    draft.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, out / REPORT)
    if len(dropped) > max_drop * num_items:
        (by, reason), count = counts.most_common(1)[0]
        example = next(drop.why for drop in dropped if (drop.by, drop.reason) == (by, reason))
        raise ValueError(
            f"{out}: {len(dropped)} of {num_items} items were dropped, more than the "
            f"{max_drop:.0%} allowed; most often, {count} times, '{by}' was {reason}: "
            f"{example}; see {REPORT} there"
        )


def _make_shard(out: Path, number: int, items: Sequence[int], make: Make, recipe: str) -> Report:
    name = shard_name(number)
    draft = out / f".{name}-{os.getpid()}"
    lines: list[str] = []
    made_by: Counter[str] = Counter()
    num_clips = 0
    dropped: list[Dropped] = []
    with tarfile.open(f"{draft}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for made in make(items):
            if isinstance(made, Dropped):
                dropped.append(made)
                continue
            for clip in made.clips:
                _add(tar, clip)
            num_clips += len(made.clips)
            lines.append(to_line(made.conversation) + "\n")
            made_by[_counted_by(made.conversation)] += 1
    report = Report(recipe, dict(sorted(made_by.items())), tuple(dropped))
    Path(f"{draft}.jsonl").write_text("".join(lines), encoding="utf-8")
    Path(f"{draft}.json").write_bytes(_REPORT.dump_json(report, indent=1))
    # The report comes last: where it is, the others are complete. What holds nothing does not
    # appear, as a file of no conversations is refused where they are read.
    for suffix, is_filled in ((".tar", num_clips), (".jsonl", len(lines)), (".json", True)):
        if is_filled:
            os.replace(f"{draft}{suffix}", out / f"{name}{suffix}")
        else:
            Path(f"{draft}{suffix}").unlink()
    return report


def _without_repeats(
    out: Path,
    number: int,
    report: Report,
    same: Callable[[Conversation], str],
    seen: set[str],
) -> Report:
    """Drop what repeats something `seen` from a complete shard, and return its report."""
    path = out / f"{shard_name(number)}.jsonl"
    kept, made_by, dropped = [], Counter[str](), {drop.item: drop for drop in report.dropped}
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    for line in lines:
        conversation = parse_line(line, str(path))
        said, by = same(conversation), _counted_by(conversation)
        if said in seen:
            item = int(conversation.id.rpartition("-")[2])
            dropped[item] = Dropped(item, by, "said before", said[:80])
            continue
        seen.add(said)
        kept.append(line + "\n")
        made_by[by] += 1
    if len(kept) == len(lines):
        return report
    told = tuple(dropped[item] for item in sorted(dropped))
    report = Report(report.recipe, dict(sorted(made_by.items())), told)
    # The report first: if it is killed between the two, doing it again comes to the same.
    draft = out / f".{shard_name(number)}-{os.getpid()}"
    draft.write_bytes(_REPORT.dump_json(report, indent=1))
    os.replace(draft, path.with_suffix(".json"))
    draft.write_text("".join(kept), encoding="utf-8")
    os.replace(draft, path)
    if not kept:
        path.unlink()
    return report


def _counted_by(conversation: Conversation) -> str:
    meta = conversation.meta
    return str(next(meta[key] for key in ("kind", "voice", "writer") if key in meta))


def _read_report(out: Path, number: int) -> Report | None:
    """Return the report of a shard that is complete."""
    path = out / f"{shard_name(number)}.json"
    if not path.is_file():
        return None
    report = _REPORT.validate_json(path.read_bytes())
    return report if not report.made or path.with_suffix(".jsonl").is_file() else None


def _add(tar: tarfile.TarFile, clip: Speech) -> None:
    """Add a clip as 16 kHz FLAC; nothing in the entry depends on the clock or the user."""
    samples = soxr.resample(clip.samples, clip.rate, SAMPLE_RATE)
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    entry = tarfile.TarInfo(clip.name)
    entry.size = file.getbuffer().nbytes  # not tell(): the header is written last
    file.seek(0)
    tar.addfile(entry, file)
