import torch

from voicetextblender.model.heard import heard


def say(model, tokens):
    """Make the adapter give out the embeddings of these tokens, whatever it is given."""
    wanted = model.table[torch.tensor(tokens)].detach()
    rows = [wanted / wanted.norm(dim=-1, keepdim=True) * 100]
    model.embed_audio = lambda features, lens: (
        torch.cat(rows * len(lens)),
        (len(tokens),) * len(lens),
    )


def test_repeats_and_blanks_are_dropped_and_every_clip_has_its_words(build, processor, sound):
    model = build().eval()
    blank = model.config.audio_token_id
    word, other = processor.tokenizer("ab", add_special_tokens=False).input_ids[:2]
    with torch.no_grad():  # rows of one length and pairwise different: each is nearest to itself
        model.table.copy_(torch.nn.functional.normalize(model.table, dim=-1))
    say(model, [blank, word, word, blank, word, other, blank])
    clips = [sound(0.5), sound(0.3)]
    assert heard(model, processor, clips) == [processor.tokenizer.decode([word, word, other])] * 2


def test_a_clip_is_heard_the_same_alone_and_among_others(build, processor, sound):
    model = build().eval()
    clips = [sound(0.4, 0), sound(0.7, 1)]
    together = heard(model, processor, clips)
    assert together == [heard(model, processor, [clip])[0] for clip in clips]
