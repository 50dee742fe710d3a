"""Prompts: token ids, labels and audio slots of a conversation. Alone in knowing chat templates.

The tokenizer's own template writes the conversation as one string in which private-use characters
mark what must not be lost: where a clip stands, where an answer begins and ends, and where the text
holds the spelling of a control token. The string is cut at the marks, and one walk over the pieces
gives ids, labels and slots together, so that they cannot disagree.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from jinja2 import TemplateError  # what a template's own raise_exception() raises
from transformers import PreTrainedTokenizerBase

from voicetextblender.chat import Conversation, Text, Turn

AUDIO_SLOT = -1
IGNORE = -100

# Added tokens that are only vocabulary, so text may use them: whitespace, words, Gemma's HTML tags.
_VOCABULARY = re.compile(
    r"[\w\s▁]+|</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s"
    r"|sub|sup|code|p|br|hr|ul|ol|li|a|div|span|pre)>"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the model reads it: one id, and one label, per position."""

    ids: list[int]
    """Token ids; AUDIO_SLOT where a clip's embeddings go, one per clip, in order."""
    labels: list[int]
    """The token id where it is supervised, IGNORE elsewhere; as long as `ids`."""
    slots: list[int]
    """Where each clip's slot is in `ids`."""


@dataclass(frozen=True, slots=True)
class _Marks:
    """Four characters that no text of the conversation holds."""

    clip: str
    """Stands for a clip."""
    cut: str
    """Breaks the spelling of a control token."""
    opens: str
    """Begins an answer."""
    closes: str
    """Ends an answer, just before its end-of-turn token."""

    @property
    def any(self) -> str:
        return self.clip + self.cut + self.opens + self.closes


class Prompter:
    """Makes prompts for one tokenizer.

    Raises ValueError if the tokenizer is slow or has no usable chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which may strip spaces around "
                f"special tokens; load the model's fast tokenizer (tokenizer.json)"
            )
        if not tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template; use the instruction-tuned model's tokenizer, "
                "or set tokenizer.chat_template to the template that the model is to learn"
            )
        self.tokenizer = tokenizer
        controls = _control_tokens(tokenizer)
        # Longest first: so the tokenizer matches, and no other spelling begins with the longest,
        # which an anchor needs.
        self._spellings = tuple(sorted(controls, key=len, reverse=True))
        self._control = re.compile("|".join(map(re.escape, self._spellings)) or "(?!)")
        # An unknown character becomes <unk>, which is no doing of the template.
        steering = {**controls, str(tokenizer.unk_token): None}
        self._control_ids = frozenset(steering.values())
        self._anchor = self._find_anchor()
        self._end_of_turn = self._find_end_of_turn()
        stops = {self._end_of_turn, str(tokenizer.eos_token)} & controls.keys()
        self.stop_ids = tuple(sorted(controls[stop] for stop in stops))
        """Ids that end an answer: the template's end of turn and the tokenizer's eos."""

    def encode(self, conversation: Conversation) -> Prompt:
        """Return the whole conversation, with every answer and its end-of-turn token supervised.

        An answer is tokenised apart from the generation prompt before it, as when it is generated.
        Its ids differ from apply_chat_template's only if the tokenizer would join the two, such as
        a newline that ends the one with a newline that begins the other. Raises ValueError if there
        is no answer, or if the template cannot show the conversation.
        """
        where = f"conversation '{conversation.id}'"
        answers = [n for n, turn in enumerate(conversation.messages) if turn.role == "assistant"]
        if not answers:
            raise ValueError(f"{where}: no assistant turn, so nothing to learn; add the answer")
        if answers[0] == 0:
            raise ValueError(f"{where}: begins with an assistant turn; put a user turn before it")
        marks = _free_marks(conversation)
        messages = self._messages(conversation.messages, marks)
        whole = self._render(messages, where)
        marked, done = "", 0
        for n in answers:
            question = self._render(messages[:n], where, add_generation_prompt=True)
            is_last = n + 1 == len(messages)
            answered = whole if is_last else self._render(messages[: n + 1], where)
            if not (whole.startswith(question) and whole.startswith(answered)):
                raise ValueError(
                    f"{where}: the chat template rewrites earlier turns once message {n} and later "
                    f"ones are there, so training would not match generation; make it one "
                    f"conversation per answer, without a system turn, or change the template"
                )
            start = len(question)
            stop = whole.find(self._end_of_turn, start, len(answered))
            if stop < 0 or messages[n]["content"].strip() not in whole[start:stop]:
                raise ValueError(
                    f"{where}: the chat template does not write message {n} in full with "
                    f"{self._end_of_turn} after it; change the answer or the template"
                )
            marked += whole[done:start] + marks.opens + whole[start:stop] + marks.closes
            done = stop
        return self._walk(marked + whole[done:], marks, conversation)

    def encode_for_answer(self, conversation: Conversation) -> Prompt:
        """Return the conversation up to where the model is to answer; nothing is supervised.

        Raises ValueError unless the conversation ends with a user turn that the template can show.
        """
        where = f"conversation '{conversation.id}'"
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise ValueError(f"{where}: must end with a user turn, or there is nothing to answer")
        marks = _free_marks(conversation)
        messages = self._messages(conversation.messages, marks)
        rendered = self._render(messages, where, add_generation_prompt=True)
        return self._walk(rendered, marks, conversation)

    def encode_for_question(self, conversation: Conversation) -> Prompt:
        """Return the conversation up to where its user is to speak, so that an LLM can play them.

        Raises ValueError if the template cannot show a user turn there.
        """
        marks = _free_marks(conversation)
        asking = {"role": "user", "content": marks.opens}
        messages = [*self._messages(conversation.messages, marks), asking]
        rendered = self._render(messages, f"conversation '{conversation.id}'")
        return self._walk(rendered.partition(marks.opens)[0], marks, conversation)

    def _messages(self, turns: Iterable[Turn], marks: _Marks) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": self._content(turn, marks)} for turn in turns]

    def _content(self, turn: Turn, marks: _Marks) -> str:
        """Join the parts of a turn, with a mark per clip and in every spelling of a control token.

        Parts stand on lines of their own unless whitespace parts them already.
        """
        content = ""
        for part in turn.parts:
            piece = part.text if isinstance(part, Text) else marks.clip
            if content and piece and not (content[-1].isspace() or piece[0].isspace()):
                content += "\n"
            content += piece
        inert, done = "", 0
        while found := self._control.search(content, done):
            # Searching on from the cut, not from the end, also finds spellings that overlap.
            cut = found.start() + 1
            inert += content[done:cut] + marks.cut
            done = cut
        return inert + content[done:]

    def _render(
        self, messages: list[dict[str, str]], where: str, *, add_generation_prompt: bool = False
    ) -> str:
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise ValueError(
                f"{where}: the chat template refuses it ({error.message}); "
                f"change the turns, or the template"
            ) from None
        assert isinstance(rendered, str)
        return rendered

    def _walk(self, marked: str, marks: _Marks, conversation: Conversation) -> Prompt:
        """Return the prompt of a rendered conversation with marks in it."""
        pieces = [piece for piece in re.split(f"([{marks.any}])", marked) if piece]
        text_ids = iter(self._ids_of_texts(pieces, marks))
        ids: list[int] = []
        labels: list[int] = []
        slots: list[int] = []
        in_answer = at_end_of_turn = False
        for piece in pieces:
            if piece == marks.clip:
                slots.append(len(ids))
                ids.append(AUDIO_SLOT)
                labels.append(IGNORE)
            elif piece == marks.opens:
                in_answer = True
            elif piece == marks.closes:
                in_answer, at_end_of_turn = False, True
            elif piece != marks.cut:
                new = next(text_ids)
                ids += new
                labels += new if in_answer else [IGNORE] * len(new)
                if at_end_of_turn:
                    labels[-len(new)] = new[0]
                    at_end_of_turn = False
        where = f"conversation '{conversation.id}'"
        if len(slots) != len(conversation.clips):
            raise ValueError(
                f"{where}: {len(conversation.clips)} clips, but the chat template left "
                f"{len(slots)} slots for them; it must write each turn once and in full"
            )
        num_controls = sum(token in self._control_ids for token in ids)
        if num_controls > len(self._control.findall(marked)):
            raise ValueError(
                f"{where}: the tokenizer turns some of its text into a control token, though it is "
                f"spelt otherwise; remove the look-alike of a control token from the text"
            )
        return Prompt(ids, labels, slots)

    def _ids_of_texts(self, pieces: Sequence[str], marks: _Marks) -> list[list[int]]:
        """Tokenise each piece that is text as it would be inside the whole."""
        texts: list[str] = []
        leads: list[tuple[str, int]] = []
        before: str | None = None
        for piece in pieces:
            if piece == marks.clip:
                before = ""
            elif piece not in marks.any:
                texts.append(piece)
                leads.append(("", 0) if before is None else self._lead(before, piece))
                before = piece
        ids = self._ids([lead + text for (lead, _), text in zip(leads, texts, strict=True)])
        return [ids[num:] for (_, num), ids in zip(leads, ids, strict=True)]

    def _lead(self, before: str, text: str) -> tuple[str, int]:
        """Return what to tokenise in front of a text, and the number of tokens to drop again.

        Without it SentencePiece puts a space before the text, as if all began there.
        """
        if self._control.match(text):
            return "", 0
        if before.endswith(self._spellings):
            return next(token for token in self._spellings if before.endswith(token)), 1
        return self._anchor

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def _find_anchor(self) -> tuple[str, int]:
        """Find a text behind which the tokenizer adds no space, and its length in tokens.

        A newline serves where a space follows even special tokens (Llama 2). If every candidate
        fails, the first is taken: text behind a clip or a cut then gets a space.
        """
        probes = ("a", " a", "\na")
        candidates = (*self._spellings, "\n")
        for anchor in candidates:
            head, *probed = self._ids([anchor, *(anchor + probe for probe in probes)])
            if all(
                ids[: len(head)] == head and self.tokenizer.decode(ids) == anchor + probe
                for ids, probe in zip(probed, probes, strict=True)
            ):
                return anchor, len(head)
        return candidates[0], len(self._ids([candidates[0]])[0])

    def _find_end_of_turn(self) -> str:
        """Return the control token that the template writes after an answer."""
        answer = "\ue000"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
        rendered = self._render(turns, "a trial question and answer")
        found = self._control.search(rendered.partition(answer)[2])
        if not found:
            raise ValueError(
                "the chat template writes no control token after an answer, so the model could not "
                "learn to stop; let it write the eos token there"
            )
        return found[0]


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the tokens that steer the model and that text must therefore never become.

    A token of one character is left out: it is that character's ordinary id as well.
    """
    return {
        token.content: token_id
        for token_id, token in sorted(tokenizer.added_tokens_decoder.items())
        if len(token.content) > 1 and (token.special or not _VOCABULARY.fullmatch(token.content))
    }


def _free_marks(conversation: Conversation) -> _Marks:
    parts = (part for turn in conversation.messages for part in turn.parts)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    private_use = map(chr, range(0xE000, 0xF900))
    return _Marks(*islice((mark for mark in private_use if mark not in text), 4))
