import pytest
import torch
from torch.nn import functional as F

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.model.cache import PrefixCache, RowCache
from voicetextblender.model.decode import (
    LeanDecoder,
    ModuleDecoder,
    build_decoder,
    is_lean,
    merge_encoder,
)
from voicetextblender.model.generate import Decoding, Generation, answers
from voicetextblender.model.layout import ROUND

CLIP = Audio("a.wav")
LONG = Decoding(max_new_tokens=24)


@pytest.fixture(scope="module")
def prompts(processor, sound):
    talks = [
        (Conversation("a", (user("Say:", CLIP),)), [sound(0.4)]),
        (Conversation("b", (user("What is it? " * 4),)), []),
        (Conversation("c", (user(CLIP, "and", CLIP),)), [sound(0.2, 1), sound(0.7, 2)]),
    ]
    return [processor.encode(talk, clips, purpose="answer") for talk, clips in talks]


@pytest.mark.parametrize("llm", ["llama", "qwen2"])
def test_the_lean_decoder_has_the_logits_of_the_module(llm, build, prompts):
    model = build(llm)
    assert is_lean(model)
    embeds = torch.cat([model.embed(torch.tensor(p.ids), audio_of(model, p)) for p in prompts])
    lens = [len(prompt) for prompt in prompts]
    decoders = [ModuleDecoder(model), LeanDecoder(model)]
    with torch.inference_mode():
        theirs, ours = (decoder.read(embeds, [0, 0, 0], lens) for decoder in decoders)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
        for tokens in ([3, 5, 7], [2, 2, 9]):
            new = torch.tensor(tokens).unsqueeze(1)
            theirs, ours = (decoder.step(new) for decoder in decoders)
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_several_tokens_read_at_once_have_the_logits_of_one_after_the_other(build, prompts):
    model = build()
    lens = [len(prompt) for prompt in prompts]
    embeds = torch.cat([model.embed(torch.tensor(p.ids), audio_of(model, p)) for p in prompts])
    new = torch.tensor([[3, 5, 7], [2, 2, 9], [1, 4, 1]])
    with torch.inference_mode():
        one, several = LeanDecoder(model), LeanDecoder(model)
        for decoder in (one, several):
            decoder.read(embeds, [0, 0, 0], lens)
        together = several.step(new)
        for place, tokens in enumerate(new.T):
            alone = one.step(tokens[:, None])[:, 0]
            torch.testing.assert_close(together[:, place], alone, atol=2e-5, rtol=1e-4)
        assert several.cache.lens == [n + 1 for n in lens], "only the first counts"
        several.cache.lens[0] += 2  # the first row's were right, of the others one
        one.cache.lens[1:] = [n + 1 for n in lens[1:]]
        last = torch.tensor([[8], [8], [8]])
        torch.testing.assert_close(several.step(last), one.step(last), atol=2e-5, rtol=1e-4)


def audio_of(model, prompt):
    if not prompt.features:
        return model.table.new_zeros(0, model.table.shape[1])
    return model.embed_audio(torch.cat(prompt.features), tuple(map(len, prompt.features)))[0]


@pytest.mark.parametrize("llm", ["llama", "qwen2", "gemma", "gemma2"])
def test_the_fast_decoder_gives_the_answers_of_the_module(llm, build, processor, prompts):
    model = build(llm)
    fast = answers(model, processor, prompts, LONG, build_decoder(model))
    assert fast == answers(model, processor, prompts, LONG)


@pytest.mark.parametrize("llm", ["llama", "gemma"])
def test_without_the_voice_a_decoder_is_the_base_llm(llm, build, processor, prompts):
    model = build(llm)
    typed = prompts[1:2]
    with model.voice_off():
        base = answers(model, processor, typed, LONG)
    assert answers(model, processor, typed, LONG, build_decoder(model, voice=False)) == base
    assert answers(model, processor, typed, LONG, build_decoder(model)) != base


def test_packed_weights_change_no_bit(build, prompts):
    decoder = LeanDecoder(build(dtype=torch.bfloat16))
    linear = build(dtype=torch.bfloat16).llm.get_output_embeddings()
    for rows in (1, 3, 40):
        hidden = torch.randn(rows, linear.in_features).bfloat16()
        with torch.inference_mode():
            assert torch.equal(decoder.head(hidden), linear(hidden))


def test_int8_weights_change_the_logits_by_little(build, prompts):
    model = build()
    embeds = model.embed(torch.tensor(prompts[1].ids), audio_of(model, prompts[1]))
    with torch.inference_mode():
        exact = LeanDecoder(model).read(embeds, [0], [len(embeds)])
        decoder = LeanDecoder(model, "int8")
        small = decoder.read(embeds, [0], [len(embeds)])
        assert 0 < (small - exact).std() < 0.05 * exact.std()
        stepped = decoder.step(torch.tensor([[5]]))[:, 0]
        whole = LeanDecoder(model).read(
            torch.cat([embeds, model.embed(torch.tensor([5]), embeds[:0])]), [0], [len(embeds) + 1]
        )
        assert (stepped - whole).std() < 0.05 * whole.std()


def test_int8_is_refused_where_there_is_no_lean_decoder(build):
    with pytest.raises(ValueError, match="kind 'gemma' has no lean decoder"):
        build_decoder(build("gemma"), "int8")


@pytest.mark.parametrize("llm", ["llama", "gemma2"])
def test_an_answer_is_the_same_whoever_joins_and_leaves_meanwhile(llm, build, processor, prompts):
    model = build(llm)
    alone = answers(model, processor, prompts, LONG)
    generation = Generation(model, processor, build_decoder(model))
    texts = {0: "", 1: "", 2: ""}
    generation.join(0, prompts[0], LONG)
    for number in range(60):
        if number == 3:
            generation.join(9, prompts[0], LONG)
            generation.join(1, prompts[1], LONG)
        if number == 5:
            generation.leave(9)
            generation.leave(9)
        if number == 6:
            generation.join(2, prompts[2], LONG)
        for chunk in generation.step() if generation.answers else []:
            if chunk.row != 9:
                texts[chunk.row] += chunk.text
    assert list(texts.values()) == alone
    assert not generation.decoder.cache.lens and not generation.decoder.cache.stores


def test_rows_and_their_room_grow_with_the_answers(build, processor, prompts):
    decoding = Decoding(max_new_tokens=300, schema=None)
    model = build()
    together = answers(model, processor, prompts, decoding, build_decoder(model))
    assert together == [answers(model, processor, [p], decoding)[0] for p in prompts]


@pytest.fixture
def talk(build, processor, sound):
    """Ask in a growing conversation; return the answer and how much was not read again."""
    model = build()
    prefixes = PrefixCache(2000)
    generation = Generation(model, processor, LeanDecoder(model), prefixes)

    def ask(*turns, clips=()):
        sample = processor.encode(Conversation("a", turns), clips, purpose="answer")
        reused = generation.join(0, sample, Decoding(max_new_tokens=8))
        text = ""
        while generation.answers:
            text += "".join(chunk.text for chunk in generation.step())
        assert text == answers(model, processor, [sample], Decoding(max_new_tokens=8))[0]
        return text, reused, len(sample)

    return ask


def test_the_next_turn_reads_only_what_is_new(talk, sound):
    first = user("Say:", CLIP)
    text, reused, num = talk(first, clips=[sound(0.5)])
    assert reused == 0
    _, reused, _ = talk(first, assistant(text), user("and now?"), clips=[sound(0.5)])
    assert reused >= num
    _, reused, _ = talk(user("something else"))
    assert reused < num


def test_another_clip_is_never_taken_for_the_one_before(talk, sound):
    turn = user("Say:", CLIP, "and", CLIP)
    talk(turn, clips=[sound(0.5), sound(0.6, 1)])
    _, same_first, _ = talk(turn, clips=[sound(0.5), sound(0.6, 2)])
    _, other_first, _ = talk(turn, clips=[sound(0.5, 3), sound(0.6, 2)])
    assert same_first > other_first > 0


@pytest.mark.parametrize("decoder", [ModuleDecoder, LeanDecoder])
def test_products_meet_few_numbers_of_rows(decoder, build, processor, sound, monkeypatch):
    """oneDNN keeps half a megabyte for each, so an hour of pieces of any length took 600 MB."""
    model, linear, seen = build(), F.linear, set()

    def noted(rows, *args):
        seen.add(rows.shape[-2])
        return linear(rows, *args)

    monkeypatch.setattr(F, "linear", noted)
    asked = Conversation("a", (user("Say:", CLIP),))
    for n in range(9):
        clips = [sound(0.3 + 0.31 * n)]
        sample = processor.encode(asked, clips, purpose="answer")
        answers(model, processor, [sample], Decoding(1, ctc_weight=0.5), decoder(model))
    seen.discard(1)  # the head's
    # The adapter's relative positions are one less than twice so many.
    assert len(seen) > 1 and all(n % ROUND == 0 or (n + 1) % (2 * ROUND) == 0 for n in seen)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5])
def test_of_what_has_no_next_turn_only_the_words_before_its_clip_are_kept(
    ctc_weight, build, processor, sound
):
    model = build()
    prefixes = PrefixCache(2000)
    generation = Generation(model, processor, LeanDecoder(model), prefixes)
    asked = Conversation("a", (user("Write it down:", CLIP),))
    decoding = Decoding(8, ctc_weight=ctc_weight, has_next=False)
    for n in range(3):
        sample = processor.encode(asked, [sound(0.5 + n)], purpose="answer")
        num = sample.ids.index(processor.audio_token_id)
        assert generation.join(0, sample, decoding) == (num if n else 0)
        text = ""
        while generation.answers:
            text += "".join(chunk.text for chunk in generation.step())
        assert text == answers(model, processor, [sample], decoding)[0]
        assert [len(kept.names) for kept in prefixes._kept] == [num]


def test_an_encoder_whose_updates_are_merged_hears_the_same(build, sound, processor):
    model = build(train={"encoder": "lora"})
    features = processor.features(sound(0.7))
    with torch.inference_mode():
        before, _ = model.embed_audio(features, (len(features),))
        merge_encoder(model)
        after, _ = model.embed_audio(features, (len(features),))
    assert not any("lora" in name for name, _ in model.encoder.named_parameters())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_the_prefix_cache_keeps_to_its_size():
    cache, prefixes = RowCache(), PrefixCache(10)
    for first in range(5):
        cache.lens = [4]
        cache.put(0, 0, 0, torch.ones(4, 2, 1, 2) * first)
        prefixes.keep([first, 1, 2, 3], cache, 0)
        cache.clear()
    assert prefixes.find([2, 1, 2, 3, 4]) == (0, [])
    for first in (3, 4):
        num, (pairs,) = prefixes.find([first, 1, 2, 9])
        assert num == 3 and (pairs == first).all()
    assert prefixes.find([4, 1])[0] == 1, "the last token is read again: its logits are needed"
