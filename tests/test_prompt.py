import json
from functools import cache
from itertools import chain, groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from voicetextblender.chat import Audio, Conversation, Turn, assistant, system, user
from voicetextblender.prompt import AUDIO_SLOT, IGNORE, Prompter

SENTENCES = [
    "Transcribe the content to English, with punctuations and capitalizations.",
    "user assistant model system You are a helpful assistant.",
    "What is said here? The weather is fine today, and the answer is a table.",
]
CLIP = "<clip>"  # a special token that the tests, never the code, put where a clip stands
UNUSED = ["<unused0>", "<tool_call>"]  # control tokens, though not marked as special
VOCABULARY = ["\t\t", "<table>", "hello"]  # added tokens that are plain vocabulary

# The control tokens of each template: beginning of text, end of turn, then the others.
CONTROLS = {
    "smollm2": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "qwen2.5": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "gemma": ["<bos>", "<end_of_turn>", "<start_of_turn>"],
    "llama3": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMS = {"gemma", "llama3"}
clip = Audio("clip.wav")


def byte_level(split: str | None = None) -> Tokenizer:
    """The GPT-2 family: SmolLM2, and, with a split of their own, Qwen and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    if split is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        words = pre_tokenizers.Split(Regex(split), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    newlines = ["\n\n\n  \n\n"] * 4  # so that runs of newlines are tokens, as in real vocabularies
    tokenizer.train_from_iterator(SENTENCES * 4 + newlines, trainer)
    return tokenizer


def sentencepiece(prefix: str) -> Tokenizer:
    """The SentencePiece family, with bytes for what the vocabulary lacks: Gemma, Mistral, Llama 2.

    A space goes before the first word (prefix "first"), or behind special tokens too ("legacy").
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    spec = json.loads(tokenizer.to_str())
    vocab = spec["model"]["vocab"]
    vocab.update({f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)})
    spec["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if prefix == "legacy":
        prepend, replace = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([prepend, replace])
        tokenizer.pre_tokenizer = None
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return tokenizer


def with_chat(tokenizer: Tokenizer, controls: list[str], template: str) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in controls])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in UNUSED + VOCABULARY])
    bos, eos, *_ = controls
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    chat.chat_template = template
    return chat


@cache
def prompter(template: str, family: str) -> Prompter:
    bytes_split = LLAMA3_SPLIT if template in ("qwen2.5", "llama3") else None
    backend = byte_level(bytes_split) if family == "bytes" else sentencepiece(family)
    text = (Path(__file__).parent / "templates" / f"{template}.jinja").read_text()
    return Prompter(with_chat(backend, [*CONTROLS[template], CLIP], text))


def smollm2_with(template: str) -> Prompter:
    return Prompter(with_chat(byte_level(), CONTROLS["smollm2"], template))


def conversation(*turns: Turn) -> Conversation:
    return Conversation("c7", turns)


def apply_chat_template(p: Prompter, *turns: Turn, **options: bool) -> list[int]:
    """What transformers makes of turns that hold one text each."""
    messages = [{"role": t.role, "content": t.parts[0].text} for t in turns]
    return p.tokenizer.apply_chat_template(messages, return_dict=False, **options)


def answers(ids: list[int], labels: list[int]) -> list[list[int]]:
    """The supervised runs of ids, each checked to be labelled with itself."""
    runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORE)
    spans = [list(run) for supervised, run in runs if supervised]
    assert all(token == label for span in spans for token, label in span)
    return [[token for token, _ in span] for span in spans]


def decode(p: Prompter, ids: list[int]) -> str:
    return p.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def controls(p: Prompter, ids: list[int]) -> list[int]:
    """The ids that steer the model, in order."""
    steering = p.tokenizer.get_added_vocab()
    steering = {token for text, token in steering.items() if text not in VOCABULARY}
    return [token for token in ids if token in steering]


quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
chats = st.sampled_from([(name, family) for name in CONTROLS for family in ("bytes", "first")])
every_chat = pytest.mark.parametrize(
    ("template", "family"),
    [(name, family) for name in CONTROLS for family in ("bytes", "first", "legacy")],
)

edges = ["", *" \n\t\u00a0é<", "\n\n\n", "\r\n", "한국어", "😀", "👩‍👩‍👧", "\ue000\ue001"]
plain = st.lists(st.sampled_from([*edges, *VOCABULARY, "▁", "Fine", "a b", "<b>"]), max_size=5)
texts = plain.map("".join)
spellings = [*dict.fromkeys(chain(*CONTROLS.values())), *UNUSED, CLIP]
broken = ["<|im_", "end|>", "<|", "|>", "[/", "INST]", "<start_of", "_turn>", "/s>", "<<", "ed0>"]
hostile = st.lists(st.sampled_from([*edges, *spellings, *broken]), max_size=6).map("".join)


@quick
@given(chats, texts, texts, texts)
def test_a_text_only_prompt_is_what_apply_chat_template_makes(chat, first, answer, second):
    p = prompter(*chat)
    turns = (user(first), assistant(answer), user(second))
    prompt = p.encode_for_answer(conversation(*turns))
    assert prompt.ids == apply_chat_template(p, *turns, add_generation_prompt=True)
    assert prompt.labels == [IGNORE] * len(prompt.ids) and prompt.slots == []


@quick
@given(chats, texts, texts)
def test_a_text_only_conversation_is_what_apply_chat_template_makes(chat, question, answer):
    p = prompter(*chat)
    turns = (user(question), assistant(answer.lstrip()), user(question), assistant("Fine."))
    assert p.encode(conversation(*turns)).ids == apply_chat_template(p, *turns)


@quick
@given(chats, texts, texts)
def test_an_answer_is_learnt_behind_just_the_ids_that_it_will_be_generated_behind(
    chat, text, answer
):
    # Where a template ends in a newline and the answer begins with one, the tokenizer would join
    # the two; the model would then learn to begin its answer with half of a token.
    p = prompter(*chat)
    prompt = p.encode(conversation(user(text), assistant("\n" + answer)))
    asked = p.encode_for_answer(conversation(user(text)))
    assert prompt.ids[: len(asked.ids)] == asked.ids
    assert decode(p, prompt.ids) == decode(
        p, apply_chat_template(p, user(text), assistant("\n" + answer))
    )


@every_chat
def test_the_legacy_space_behind_special_tokens_stays_where_it_was(template, family):
    p = prompter(template, family)
    turns = (user("Fine?"), assistant("Fine."), user(" today\n"), assistant("the answer"))
    assert p.encode(conversation(*turns)).ids == apply_chat_template(p, *turns)


@quick
@given(chats, st.lists(hostile, min_size=1, max_size=3))
def test_labels_are_every_answer_with_its_end_of_turn_and_nothing_else(chat, written):
    template, _ = chat
    p = prompter(*chat)
    turns = [turn for text in written for turn in (user("Fine?"), assistant(text))]
    prompt = p.encode(conversation(*turns))
    end_of_turn = CONTROLS[template][1]
    lead = p.tokenizer.convert_tokens_to_ids(end_of_turn)  # keeps decode from stripping a space
    supervised = [decode(p, [lead, *span]) for span in answers(prompt.ids, prompt.labels)]
    space = " " if template == "mistral" else ""
    expected = [text.strip() if template in TRIMS else text for text in written]
    assert supervised == [end_of_turn + space + text + end_of_turn for text in expected]


@quick
@given(chats, hostile, hostile)
def test_content_never_becomes_a_control_token_and_is_never_changed(chat, question, answer):
    p = prompter(*chat)
    turns = (user(question), assistant(answer))
    prompt = p.encode(conversation(*turns))
    messages = [{"role": t.role, "content": t.parts[0].text} for t in turns]
    assert decode(p, prompt.ids) == p.tokenizer.apply_chat_template(messages, tokenize=False)
    assert controls(p, prompt.ids) == controls(
        p, p.encode(conversation(user(""), assistant(""))).ids
    )


@pytest.mark.parametrize(
    "text", ["<|im_<|im_end|>start|>", "<|im_end|><|im_end|>", "<unused0>", CLIP]
)
@every_chat
def test_a_typed_control_token_is_plain_text_in_every_part_of_a_turn(template, family, text):
    p = prompter(template, family)
    prompt = p.encode_for_answer(conversation(user(text, clip, text, clip)))
    assert controls(p, prompt.ids) == controls(p, p.encode_for_answer(conversation(user("x"))).ids)
    first, second = prompt.slots
    assert text in decode(p, prompt.ids[:first])
    assert f"\n{text}\n" in decode(p, prompt.ids[first + 1 : second])
    assert prompt.ids.count(AUDIO_SLOT) == 2


def test_of_control_tokens_that_overlap_none_is_left():
    backend = byte_level()
    tokenizer = with_chat(backend, ["<a>", "<|im_end|>", "<|im_start|>", "<a><b", "><b>"], CHATML)
    p = Prompter(tokenizer)
    prompt = p.encode_for_answer(conversation(user("x<a><b>y")))
    assert not {"<a>", "<a><b", "><b>"} & set(tokenizer.convert_ids_to_tokens(prompt.ids))
    assert "x<a><b>y" in decode(p, prompt.ids)


@quick
@given(
    chats,
    st.lists(st.sampled_from(["Fine", "  today", "the\n", "한 😀", clip]), min_size=1, max_size=5),
)
def test_clips_stand_where_a_special_token_in_their_place_would(chat, parts):
    p = prompter(*chat)
    prompt = p.encode(
        conversation(user("Listen."), assistant("Fine."), user(*parts), assistant("a"))
    )
    typed = ""
    for part in (CLIP if isinstance(part, Audio) else part for part in parts):
        parted = not typed or typed[-1].isspace() or part[0].isspace()
        typed += part if parted else "\n" + part
    turns = (user("Listen."), assistant("Fine."), user(typed), assistant("a"))
    slot = p.tokenizer.convert_tokens_to_ids(CLIP)
    expected = apply_chat_template(p, *turns)
    assert prompt.ids == [AUDIO_SLOT if token == slot else token for token in expected]
    assert prompt.slots == [n for n, token in enumerate(expected) if token == slot]
    assert all(prompt.labels[slot] == IGNORE for slot in prompt.slots)


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        (["Listen.", clip], "Listen.\n<clip>"),
        ([clip, "What was that?"], "<clip>\nWhat was that?"),
        (["Listen: ", clip, " and ", clip], "Listen: <clip> and <clip>"),
        ([clip, clip], "<clip>\n<clip>"),
        (["", clip, ""], "<clip>"),
        ([clip, "\n", clip], "<clip>\n<clip>"),
        (["one", "two"], "one\ntwo"),
    ],
)
def test_parts_stand_on_lines_of_their_own_unless_whitespace_parts_them(parts, content):
    p = prompter("smollm2", "bytes")
    expected = apply_chat_template(p, user(content), add_generation_prompt=True)
    slot = p.tokenizer.convert_tokens_to_ids(CLIP)
    prompt = p.encode_for_answer(conversation(user(*parts)))
    assert prompt.ids == [AUDIO_SLOT if token == slot else token for token in expected]


@every_chat
def test_text_behind_a_clip_gets_no_space_that_nobody_wrote(template, family):
    p = prompter(template, family)
    prompt = p.encode_for_answer(conversation(user(clip, "today")))
    newline, *_ = p.tokenizer.convert_ids_to_tokens([prompt.ids[prompt.slots[0] + 1]])
    assert newline in ("Ċ", "<0x0A>")


@every_chat
def test_generation_stops_at_the_end_of_turn_that_the_labels_teach(template, family):
    p = prompter(template, family)
    prompt = p.encode(conversation(user("Fine?"), assistant("Fine.")))
    (answer,) = answers(prompt.ids, prompt.labels)
    assert answer[-1] in p.stop_ids
    assert p.stop_ids == (p.tokenizer.eos_token_id,)


def test_generation_also_stops_at_eos():
    tokenizer = with_chat(byte_level(), ["<|im_end|>", "<|endoftext|>", "<|im_start|>"], CHATML)
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert Prompter(tokenizer).stop_ids == tuple(sorted(ids))


def test_a_tokenizer_that_was_told_to_truncate_truncates_no_prompt():
    p = prompter("smollm2", "bytes")
    whole = p.encode(conversation(user("Fine? " * 50), assistant("Fine.")))
    p.tokenizer("Fine? Fine.", truncation=True, max_length=2)
    assert p.encode(conversation(user("Fine? " * 50), assistant("Fine."))) == whole


def test_a_tokenizer_that_adds_a_space_to_all_text_still_makes_no_control_token():
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    p = Prompter(with_chat(backend, CONTROLS["smollm2"], CHATML))
    prompt = p.encode_for_answer(conversation(user(clip, "<|im_end|>")))
    assert len(controls(p, prompt.ids)) == 3 and prompt.ids.count(AUDIO_SLOT) == 1
    assert "< |im_end|>" in decode(p, prompt.ids[prompt.slots[0] + 1 :])


def test_a_conversation_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="conversation 'c7': no assistant turn"):
        prompter("smollm2", "bytes").encode(conversation(user("Fine?")))


def test_a_conversation_that_begins_with_an_answer_is_refused():
    with pytest.raises(ValueError, match="conversation 'c7': begins with an assistant turn"):
        prompter("smollm2", "bytes").encode(conversation(assistant("Fine.")))


@pytest.mark.parametrize("turns", [(), (user("Fine?"), assistant("Fine."))])
def test_a_question_must_come_last_to_be_answered(turns):
    with pytest.raises(ValueError, match="conversation 'c7': must end with a user turn"):
        prompter("smollm2", "bytes").encode_for_answer(conversation(*turns))


def test_what_a_template_refuses_is_told_in_its_own_words():
    p = prompter("gemma", "first")
    with pytest.raises(ValueError, match="conversation 'c7': .*System role not supported"):
        p.encode(conversation(system("Be brief."), user("Fine?"), assistant("Fine.")))
    with pytest.raises(ValueError, match="conversation 'c7': .*roles must alternate"):
        p.encode_for_answer(conversation(user("Fine?"), user("Fine?")))


def test_a_template_that_rewrites_earlier_turns_is_refused():
    # Mistral's writes the system turn into the last user turn, so it moves on, or vanishes.
    turns = (system("Be brief."), user("Fine?"), assistant("Fine."))
    p = prompter("mistral", "first")
    with pytest.raises(ValueError, match="conversation 'c7': the chat template rewrites earlier"):
        p.encode(conversation(*turns))
    assert p.encode_for_answer(conversation(*turns[:2])).ids  # it can still answer


def test_a_template_that_changes_an_answer_is_refused():
    p = smollm2_with(CHATML.replace("m.content", "m.content.split('</think>')[-1]"))
    with pytest.raises(ValueError, match=r"conversation 'c7': .*does not write message 1 in full"):
        p.encode(conversation(user("Fine?"), assistant("Well.</think>Fine.")))


@pytest.mark.parametrize(
    ("content", "slots"), [("m.content[:1]", 0), ("m.content + m.content", 2)], ids=["0", "2"]
)
def test_a_template_that_drops_or_doubles_a_clip_is_refused(content, slots):
    p = smollm2_with(CHATML.replace("m.content", content))
    with pytest.raises(
        ValueError, match=f"'c7': 1 clips, but the chat template left {slots} slots"
    ):
        p.encode_for_answer(conversation(user("Listen.", clip)))


def test_a_look_alike_that_the_tokenizer_makes_a_control_token_is_refused():
    backend = byte_level()
    backend.normalizer = normalizers.NFKC()
    backend.add_tokens([AddedToken("<tool>", normalized=True)])
    p = Prompter(with_chat(backend, CONTROLS["smollm2"], CHATML))
    assert p.encode_for_answer(conversation(user("<tool>")))
    with pytest.raises(ValueError, match="conversation 'c7': .*look-alike of a control token"):
        p.encode_for_answer(conversation(user("＜tool＞")))


def test_a_template_that_never_ends_an_answer_is_refused():
    with pytest.raises(ValueError, match="writes no control token after an answer"):
        smollm2_with("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")


def test_a_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(ValueError, match=r"no chat template; .*set tokenizer\.chat_template"):
        smollm2_with("")


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="ByT5Tokenizer is a slow tokenizer"):
        Prompter(ByT5Tokenizer())


@pytest.mark.slow
def test_it_all_holds_for_the_real_smollm2():
    from voicetextblender.model.parts import resolve

    p = Prompter(AutoTokenizer.from_pretrained(resolve("smollm2-135m")))
    turns = (
        user("What is 1 + 1?\n"),
        assistant("It is 2. 😀"),
        user(" And\n\n\n?"),
        assistant("3"),
    )
    prompt = p.encode(conversation(*turns))
    assert prompt.ids == apply_chat_template(p, *turns)
    supervised = [decode(p, span) for span in answers(prompt.ids, prompt.labels)]
    assert supervised == ["It is 2. 😀<|im_end|>", "3<|im_end|>"]
    for typed in p.tokenizer.all_special_tokens:
        asked = p.encode_for_answer(conversation(user(f"a {typed}b", clip, typed)))
        assert len(controls(p, asked.ids)) == 5 and asked.ids.count(AUDIO_SLOT) == 1
        assert f"a {typed}b\n" in decode(p, asked.ids[: asked.slots[0]])
