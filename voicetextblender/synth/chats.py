"""Text conversations without any data set: a language model asks and answers itself.

The user's turns are sampled from the model's bare chat template (Xu et al. 2024, Magpie), or are
prompts that are given; the answers are the same model's, so that training on them leaves it as it
was. What is too long, runs in circles, is in another language, or was said before is dropped.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from voicetextblender.chat import Conversation, Turn, assistant, user
from voicetextblender.seeding import draw_seed, seeded
from voicetextblender.synth.plan import in_groups
from voicetextblender.synth.quality import is_written_in, repeats_itself
from voicetextblender.synth.shards import Dropped, Made
from voicetextblender.synth.writers import Failed, Sampling, load_writer
from voicetextblender.text import normalise

PER_GROUP = 100  # a shard, asked together

_ASKING = Sampling(temperature=0.8, top_p=0.9, max_tokens=80)
# A user does not speak as an assistant does, and fills the blanks of a form.
_NOT_A_USER = re.compile(
    r"^(sure|certainly|of course|here (is|are)|i('m| am) (sorry|happy|glad|here)|as an ai|[aq]:)"
    r"|how can i (help|assist) you|let me know if|\[[a-z][\w ]*\]",
    re.IGNORECASE,
)
_UNFIT = re.compile(r"\b(rap(e|ed|ist)|porn|suicide|nude|naked|fuck|shit|nazi)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chats:
    """How chats are made; called with the numbers of items, it makes them."""

    writer: str
    """Asks and answers; named as in `synth.writers`."""
    num_items: int = 1000
    prompts: tuple[Conversation, ...] = ()
    """Whose first user turns begin the chats, one item each; none: the writer asks."""
    most_turns: int = 1
    """A chat has 1 to this many questions, each with its answer."""
    lang: str = "en"
    most_words: int = 120
    """Of a question."""
    longest_answer: int = 400
    """Tokens; small models are long-winded."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most_turns < 1:
            raise ValueError(f"most_turns is {self.most_turns}; it must be 1 or more")
        if self.prompts:
            object.__setattr__(self, "num_items", min(self.num_items, len(self.prompts)))

    def __call__(self, items: Sequence[int]) -> Iterator[Made | Dropped]:
        """Make some items."""
        # Instead of a prompt that is answered at too great length, another can be given.
        return in_groups(items, PER_GROUP, self._attempt, num_attempts=1 if self.prompts else 3)

    def _attempt(self, items: Sequence[int], attempt: int) -> Iterator[tuple[int, Made | Dropped]]:
        writer = load_writer(self.writer)
        chats: dict[int, tuple[Turn, ...]] = {item: () for item in items}
        for number in range(self.most_turns):
            for is_asking in (True, False):
                growing = self._growing(chats, number, is_asking)
                seeds = [
                    draw_seed(seeded(self.seed, "chat", item, attempt, number, is_asking))
                    for item in growing
                ]
                answering = Sampling(temperature=0.6, max_tokens=self.longest_answer)
                how = _ASKING if is_asking else answering
                turns = writer.write([chats[item] for item in growing], seeds, how)
                for item, turn in zip(growing, turns, strict=True):
                    fault = turn if isinstance(turn, Failed) else self._fault(turn, is_asking)
                    if fault is None:
                        chats[item] += ((user if is_asking else assistant)(str(turn)),)
                    elif number == 0:
                        del chats[item]
                        yield item, Dropped(item, self.writer, fault.reason, fault.why)
                    elif not is_asking:  # what went before is whole, and is kept
                        chats[item] = chats[item][:-1]
        for item, turns in chats.items():
            asked = self.prompts[item].meta if self.prompts else {}
            meta = {**asked, "writer": self.writer, "synthetic": True}
            yield item, Made(Conversation(f"chat-{item:06d}", turns, "text", self.lang, meta))

    def _growing(
        self, chats: dict[int, tuple[Turn, ...]], number: int, is_asking: bool
    ) -> list[int]:
        """Return the items whose chats get their next turn; given prompts are put in on the way."""
        growing: list[int] = []
        for item, chat in chats.items():
            wanted = 1 + int(seeded(self.seed, "turns", item).integers(self.most_turns))
            if number >= wanted or len(chat) != 2 * number + (not is_asking):
                continue
            if self.prompts and is_asking and number == 0:
                asked = next(t for t in self.prompts[item].messages if t.role == "user")
                chats[item] = (user(asked.text),)
            else:
                growing.append(item)
        return growing

    def _fault(self, turn: str, is_asking: bool) -> Failed | None:
        if not normalise(turn):
            return Failed("without words", turn)
        if repeats_itself(turn):
            return Failed("going in circles", turn)
        if not is_written_in(turn, self.lang):
            return Failed("written in another language", turn)
        if _UNFIT.search(turn):
            return Failed("not fit for training", turn)
        if is_asking and _NOT_A_USER.search(turn):
            return Failed("not said as a user would", turn)
        if is_asking and not 3 <= len(turn.split()) <= self.most_words:
            return Failed("too short or too long a question", turn)
        return None


def first_question(conversation: Conversation) -> str:
    """Return what makes two chats the same: the words of the first question."""
    return normalise(next(turn.text for turn in conversation.messages if turn.role == "user"))
