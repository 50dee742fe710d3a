"""Looking at conversations: one HTML file with players, turns, tokens and filters.

The file needs no network. Its script only hides, plays and moves the focus; without it all is
shown.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from voicetextblender.audio import SAMPLE_RATE, load, opus_bytes
from voicetextblender.chat import Audio, Turn
from voicetextblender.data.inspect import Check, Examined, examine, read
from voicetextblender.page import Html, data_url, join, page, tag
from voicetextblender.prompt import AUDIO_SLOT, IGNORE, Prompt, Prompter

HERE = Path(__file__).parent
_COLUMNS = 240  # of a waveform
_FILTERS = ("task", "language", "voice")


@dataclass(frozen=True, slots=True)
class _Heard:
    """A conversation with the samples of its clips, None where there is no sound to be had."""

    examined: Examined
    clips: tuple[np.ndarray | None, ...]


def write_view(
    paths: Sequence[str],
    out: Path,
    limit: int = 200,
    seed: int = 0,
    prompter: Prompter | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Write the page and return how many conversations it shows, `limit` at the most.

    Raises ValueError for a path without conversations, or a line that is none.
    """
    total = 0

    def count(share: float) -> None:
        nonlocal total
        total += 1
        progress(share / 2)

    drawn = draw(examine(read(paths, count), prompter), limit, seed)
    heard = []
    for number, examined in enumerate(drawn):
        heard.append(_hear(examined))
        progress(0.5 + 0.5 * (number + 1) / len(drawn))
    if len(drawn) == total:
        lead = f"All {total:,} conversations of {', '.join(paths)}."
    else:
        lead = (
            f"{len(drawn):,} of the {total:,} conversations of {', '.join(paths)}: drawn by lot "
            f"(seed {seed}) from each task, language, voice and failed check in turn, so what is "
            f"rare is shown more often than it occurs."
        )
    cards = [_card(each, prompter) for each in heard]
    whole = page(
        "Conversations",
        tag("p", "voicetextblender", class_="eyebrow"),
        tag("h1", "Conversations"),
        tag("p", lead, class_="lead"),
        _filters([each.examined for each in heard]),
        _legend(prompter is not None),
        tag("div", *cards, class_="talks"),
        style=(HERE / "view.css").read_text("utf-8"),
        script=(HERE / "view.js").read_text("utf-8"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(whole, encoding="utf-8")
    return len(drawn)


def draw(examined: Iterable[Examined], limit: int, seed: int) -> list[Examined]:
    """Draw `limit` by lot from each task, language, voice and failed check in turn, in file order.

    No more than `limit` are held of each of these groups.
    """
    lots = random.Random(seed)
    groups: dict[tuple[object, ...], list[tuple[float, int, Examined]]] = {}
    for number, each in enumerate(examined):
        facts = each.facts
        key = (facts.task, facts.language, facts.voice, *each.failed)
        group = groups.setdefault(key, [])
        heapq.heappush(group, (lots.random(), number, each))
        if len(group) > limit:
            heapq.heappop(group)
    # The first of every group, then the second of every group, and so on.
    ranked = [
        (rank, number, each)
        for group in groups.values()
        for rank, (_, number, each) in enumerate(sorted(group, reverse=True))
    ]
    first = heapq.nsmallest(limit, ranked)
    return [each for _, _, each in sorted(first, key=lambda item: item[1])]


def waveform(samples: np.ndarray) -> Html:
    """Draw samples (n,) as the range of each of _COLUMNS stretches, as high as their peak."""
    peak = float(np.abs(samples).max()) or 1.0
    stretches = np.array_split(samples / peak, min(_COLUMNS, len(samples)))
    upper = [f"{x} {-stretch.max():.2f}" for x, stretch in enumerate(stretches)]
    lower = [f"{x} {-stretch.min():.2f}" for x, stretch in enumerate(stretches)]
    return tag(
        "svg",
        tag("rect", class_="played", x=0, y=-1, width=0, height=2),
        tag("path", d=f"M{'L'.join(upper)}L{'L'.join(reversed(lower))}z"),
        class_="wave",
        viewBox=f"0 -1.05 {max(1, len(stretches) - 1)} 2.1",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def token_texts(
    ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, bool]]:
    """Return the text of every token but slots', and whether it is supervised.

    Tokens that hold a part of a character each are joined. A slot's text is empty.
    """
    shown: list[tuple[str, bool]] = []
    pending: list[int] = []
    before: list[int] = []
    for place, token in enumerate(ids):
        is_supervised = labels[place] != IGNORE
        if token == AUDIO_SLOT:
            shown.append(("", False))
            pending, before = [], []
            continue
        pending.append(token)
        # Behind its neighbour, since some tokenizers drop the space that begins a text.
        text = _decoded(tokenizer, before + pending)[len(_decoded(tokenizer, before)) :]
        is_last = place + 1 == len(ids) or (labels[place + 1] != IGNORE) != is_supervised
        if text.endswith("\ufffd") and len(pending) < 4 and not is_last:
            continue
        shown.append((text, is_supervised))
        pending, before = [], pending
    return shown


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def _hear(examined: Examined) -> _Heard:
    """Decode the clips, and note which cannot be."""
    failed = dict(examined.failed)
    clips: list[np.ndarray | None] = []
    for clip in examined.conversation.clips:
        try:
            clips.append(load(clip.audio, clip.start, clip.duration))
        except FileNotFoundError as error:
            failed["missing audio"] = str(error)
            clips.append(None)
        except (ValueError, OSError) as error:
            if "clip past the end" not in failed:
                failed["broken audio"] = str(error)
            clips.append(None)
    return _Heard(replace(examined, failed=failed), tuple(clips))


def _card(heard: _Heard, prompter: Prompter | None) -> Html:
    examined, facts = heard.examined, heard.examined.facts
    chips = [
        tag("span", facts.task, class_="chip"),
        tag("span", facts.language, class_="chip"),
        tag("span", facts.voice, class_="chip") if facts.speech != "text only" else "",
        tag("span", facts.speech, class_=f"chip {facts.speech.replace(' ', '-')}"),
        tag("span", facts.licence, class_="chip"),
    ]
    failed = [
        tag("li", tag("b", check), ": ", why) for check, why in sorted(examined.failed.items())
    ]
    clips = iter(heard.clips)
    turns = [
        _turn(turn, [next(clips) for _ in turn.clips]) for turn in examined.conversation.messages
    ]
    return tag(
        "article",
        tag(
            "header",
            tag("h2", examined.conversation.id),
            tag("div", *(join((chip, " ")) for chip in chips if chip)),
        ),
        tag("ul", *failed, class_="failed") if failed else "",
        tag("div", *turns, class_="turns"),
        _tokens(examined.prompt, prompter.tokenizer) if examined.prompt and prompter else "",
        class_="talk",
        tabindex="-1",
        data_task=facts.task,
        data_language=facts.language,
        data_voice=facts.voice,
        data_failed="|".join(sorted(examined.failed)),
    )


def _turn(turn: Turn, samples: Sequence[np.ndarray | None]) -> Html:
    clips = iter(samples)
    parts = [
        _clip(part, next(clips)) if isinstance(part, Audio) else tag("p", part.text, dir="auto")
        for part in turn.parts
    ]
    return tag("div", tag("span", turn.role, class_="role"), tag("div", *parts), class_=turn.role)


def _clip(clip: Audio, samples: np.ndarray | None) -> Html:
    said = (
        tag("p", tag("span", clip.text, class_="spoken"), dir="auto")
        if clip.text is not None
        else tag("p", "What is said in it is not written down.", class_="note")
    )
    name = clip.audio.rpartition("/")[2]
    if samples is None:
        player = [tag("p", f"No sound: {name}", class_="warning")]
    else:
        peak = float(np.abs(samples).max())
        level = f"peak {20 * np.log10(peak):.0f} dB" if peak else "silence"
        player = [
            waveform(samples),
            tag(
                "audio",
                controls=True,
                preload="metadata",
                aria_label=name,
                src=data_url(
                    "audio/ogg;codecs=opus", opus_bytes(clip.audio, clip.start, clip.duration)
                ),
            ),
            tag("p", f"{len(samples) / SAMPLE_RATE:.2f} s · {level} · {name}", class_="note"),
        ]
    return tag("div", *player, said, class_="heard")


def _tokens(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Html:
    pieces, number = [], 0
    for text, is_supervised in token_texts(prompt.ids, prompt.labels, tokenizer):
        if not text:
            number += 1
            pieces.append(tag("span", f"clip {number}", class_="slot"))
        else:
            visible = text.replace("\n", "↵\n")
            pieces.append(tag("i", visible, class_="on" if is_supervised else "off"))
    supervised = sum(label != IGNORE for label in prompt.labels)
    summary = f"{len(prompt.ids)} positions, {supervised} supervised"
    return tag("details", tag("summary", summary), tag("p", *pieces, class_="tokens"), open=True)


def _legend(has_tokens: bool) -> Html:
    marks = [tag("span", "said in a clip", class_="spoken")]
    if has_tokens:
        marks += [
            tag("span", tag("i", "supervised", class_="on"), class_="tokens"),
            tag("span", tag("i", "only read", class_="off"), class_="tokens"),
            join((tag("span", "clip 1", class_="slot"), " where a clip goes")),
        ]
    keys = (("/", "search"), ("j", "next"), ("k", "previous"), ("p", "play or pause"))
    pressed = [tag("span", tag("kbd", key), f" {does}") for key, does in keys]
    return tag("div", *(tag("span", mark) for mark in marks), *pressed, class_="note legend")


def _filters(shown: Sequence[Examined]) -> Html:
    counted = {name: Counter[str]() for name in _FILTERS}
    failed: Counter[Check] = Counter()
    for each in shown:
        counted["task"][each.facts.task] += 1
        counted["language"][each.facts.language] += 1
        counted["voice"][each.facts.voice] += 1
        failed.update(each.failed.keys())
    selects = [
        _select(name, [(value, f"{value} ({n})") for value, n in counter.most_common()])
        for name, counter in counted.items()
    ]
    num_failed = sum(bool(each.failed) for each in shown)
    checks = [("none", f"none failed ({len(shown) - num_failed})"), ("any", f"any ({num_failed})")]
    checks += [(check, f"{check} ({failed[check]})") for check in get_args(Check) if failed[check]]
    search = tag(
        "label", "search", tag("input", type="search", name="search", placeholder="words or id")
    )
    return tag(
        "form",
        search,
        *selects,
        _select("failed", checks, "failed check"),
        tag("button", "Show all", type="reset"),
        tag("output", f"{len(shown)} of {len(shown)} shown", aria_live="polite"),
        id="filters",
        hidden=True,
    )


def _select(name: str, options: Sequence[tuple[str, str]], label: str = "") -> Html:
    choices = [tag("option", text, value=value) for value, text in options]
    return tag(
        "label", label or name, tag("select", tag("option", "all", value=""), *choices, name=name)
    )
