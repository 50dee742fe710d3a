"""Speech translation from recordings: a writer translates what is said in clips that exist."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.seeding import draw_seed, seeded
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.quality import is_written_in, repeats_itself
from voicetextblender.synth.shards import Dropped, Made
from voicetextblender.synth.writers import Chat, Failed, Sampling, load_writer
from voicetextblender.text import LANGUAGES, Wording, draw_wording, normalise, translate_instruction

PER_GROUP = 50


@dataclass(frozen=True, slots=True)
class Translations:
    """What is translated, by whom; called with the numbers of items, it makes them."""

    clips: tuple[Conversation, ...]
    """With one clip each, whose words are known."""
    writer: str
    target: str
    """ISO 639-1 code."""
    wording: Literal["paper", "varied"] = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        translate_instruction("en", self.target)  # refuses a language without a name

    @property
    def num_items(self) -> int:
        return len(self.clips)

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        return in_groups(items, PER_GROUP, self._attempt)

    def _attempt(self, items: Sequence[int], attempt: int) -> Iterator[tuple[int, Made | Dropped]]:
        chats: list[Chat] = []
        for item in items:
            names = [LANGUAGES.get(lang, lang) for lang in (self._lang(item), self.target)]
            order = f"Translate from {names[0]} to {names[1]}. Write the translation only.\n\n"
            chats.append((user(order + (self.clips[item].clips[0].text or "")),))
        seeds = [draw_seed(seeded(self.seed, "translate", n, attempt)) for n in items]
        how = Sampling(temperature=0.5 * attempt)  # the likeliest first
        turns = load_writer(self.writer).write(chats, seeds, how)
        for item, turn in zip(items, turns, strict=True):
            fault = turn if isinstance(turn, Failed) else self._fault(item, turn)
            if fault:
                kind = f"{self._lang(item)}-{self.target}"
                yield item, Dropped(item, kind, fault.reason, fault.why)
            else:
                yield item, self._made(item, str(turn))

    def _fault(self, item: int, turn: str) -> Failed | None:
        said = self.clips[item].clips[0].text or ""
        both = f"{said!r}: {turn!r}"
        if normalise(turn) == normalise(said) or not is_written_in(turn, self.target):
            return Failed("not translated", both)
        if not 0.4 < len(turn) / len(said) < 2.5 or repeats_itself(turn):
            return Failed("translated at another length", both)
        return None

    def _made(self, item: int, translation: str) -> Made:
        source, lang = self.clips[item], self._lang(item)
        wording = Wording(translate_instruction(lang, self.target))
        if self.wording == "varied":
            wording = draw_wording(seeded(self.seed, "wording", item), lang, self.target)
        kind = f"{lang}-{self.target}"
        meta = {**source.meta, "kind": kind, "target_lang": self.target, "writer": self.writer}
        turns = (
            user(wording.instruction, source.clips[0]),
            assistant(wording.answer(translation)),
        )
        id = f"{source.id}-{self.target}-{item:06d}"
        return Made(Conversation(id, turns, "ast", lang, meta))

    def _lang(self, item: int) -> str:
        return self.clips[item].lang or "en"
