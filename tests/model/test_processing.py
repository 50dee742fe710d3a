import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, PreTrainedTokenizerFast, WhisperFeatureExtractor

from voicetextblender.batch import IGNORE
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.model.features import log_mel
from voicetextblender.model.processing import SpeechLMProcessor, choose_audio_token

CLIP = Audio("a.wav", text="hello")
SECOND = 16_000


def spoken(*answers):
    """A conversation with a clip and a word in each question."""
    turns = [turn for answer in answers for turn in (user("Say", CLIP), assistant(answer))]
    return Conversation("spoken", tuple(turns), "asr")


@pytest.fixture(scope="module")
def model(build):
    return build()


def count_of(processor, sample):
    return sample.ids.count(processor.audio_token_id)


@torch.no_grad()
def check_counts(model, processor, num_samples):
    rng = np.random.default_rng(num_samples)
    clip = rng.standard_normal(num_samples).astype(np.float32)
    sample = processor.encode(spoken("yes"), [clip])
    (features,) = sample.features
    assert features.dtype == torch.float32 and features.shape[1] == processor.num_mel_bins
    embeds, lens = model.embed_audio(features, (len(features),))
    assert count_of(processor, sample) == len(embeds) == lens[0] > 0


@pytest.mark.parametrize(
    "num_samples", [1, 159, 160, 399, 400, 401, 8 * 160, 1280 + 1, 30 * SECOND, 31 * SECOND + 7]
)
def test_a_clip_of_any_length_has_as_many_positions_as_embeddings(model, processor, num_samples):
    check_counts(model, processor, num_samples)


@settings(max_examples=25, deadline=None)
@given(num_samples=st.integers(1, 2 * SECOND))
def test_positions_and_embeddings_agree(model, processor, num_samples):
    check_counts(model, processor, num_samples)


class FakeParakeetExtractor:
    """What Parakeet's extractor, which needs librosa, returns: the last of (1, F, M) is padding."""

    feature_size = 8

    def __call__(self, samples, **_):
        num_frames = len(samples) // 160
        features = torch.arange(1.0, num_frames + 2)[None, :, None].expand(1, num_frames + 1, 8)
        mask = torch.arange(num_frames + 1)[None] < num_frames
        return {"input_features": features * mask[..., None], "attention_mask": mask}


@pytest.fixture
def parakeet_processor(processor, tiny, monkeypatch):
    monkeypatch.setattr(processor, "feature_extractor", FakeParakeetExtractor())
    monkeypatch.setattr(processor, "features_per_embedding", 32)
    return processor


@pytest.mark.parametrize("num_samples", [1, 1279, 1280, 1281, SECOND, 5 * SECOND])
def test_parakeet_too_has_as_many_positions_as_embeddings(build, parakeet_processor, num_samples):
    check_counts(build(encoder="parakeet"), parakeet_processor, num_samples)


@pytest.mark.parametrize("num_frames", [7, 8, 9])
def test_time_runs_down_the_features_even_where_frames_are_as_many_as_mel_bins(
    parakeet_processor, num_frames
):
    features = parakeet_processor.features(np.zeros(160 * num_frames, np.float32))
    assert features[:, 0].tolist() == list(range(1, num_frames + 1))


def test_time_runs_down_whispers_features_as_well(processor):
    burst = np.zeros(8 * 160, np.float32)
    burst[4 * 160 :] = np.random.default_rng(0).standard_normal(4 * 160)
    features = processor.features(burst)
    assert features.shape == (8, 8)
    assert (features[6:].mean(1) > features[:2].mean(1).max()).all()


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.025, 0.1, 3.3333, 7])
def test_features_are_those_of_whispers_own_extractor(seconds, num_mel_bins, sound):
    extractor = WhisperFeatureExtractor(num_mel_bins)
    samples = sound(seconds)
    samples[len(samples) // 2 :] *= 0.001  # most of it below what the loudest frame lets through
    theirs = extractor(
        samples, sampling_rate=SECOND, padding="longest", truncation=False, return_tensors="pt"
    )
    ours = log_mel(torch.from_numpy(samples), extractor)
    torch.testing.assert_close(ours, theirs["input_features"][0].T, atol=1e-5, rtol=0)


def test_labels_are_the_next_tokens_of_every_answer_and_its_end_of_turn(processor, sound):
    sample = processor.encode(spoken("yes", "A table."), [sound(0.3), sound(0.4)], "asr-en")
    scored = [n for n, label in enumerate(sample.labels) if label != IGNORE]
    assert all(sample.labels[n] == sample.ids[n + 1] for n in scored)
    said = processor.tokenizer.decode([sample.labels[n] for n in scored])
    assert said == "yes<|im_end|>A table.<|im_end|>"
    assert (sample.id, sample.source, sample.task) == ("spoken", "asr-en", "asr")


def test_each_clip_stands_where_it_was_in_its_turn(processor, sound):
    clips = [sound(0.3), sound(0.6)]
    sample = processor.encode(spoken("yes", "no"), clips)
    runs = "".join("a" if token == processor.audio_token_id else "." for token in sample.ids)
    lens = [len(run) for run in runs.split(".") if run]
    assert lens == [-(-len(f) // processor.features_per_embedding) for f in sample.features]


def test_the_words_of_a_clip_are_its_ctc_targets_and_nothing_that_is_read(processor, sound):
    unknown, silent = Audio("b.wav"), Audio("c.wav", text="")
    talk = Conversation("x", (user(CLIP, unknown, silent), assistant("yes")))
    sample = processor.encode(talk, [sound(0.3)] * 3)
    hello, *others = sample.ctc_targets
    assert processor.tokenizer.decode(hello) == "hello"
    assert others == [None, []]
    assert "hello" not in processor.tokenizer.decode(sample.ids)


def test_the_words_of_a_clip_never_hold_the_blank(processor, sound):
    talk = Conversation("x", (user(Audio("a", text="<repo_name> <|im_end|>")), assistant("yes")))
    (target,) = processor.encode(talk, [sound(0.3)]).ctc_targets
    assert processor.audio_token_id not in target


def test_a_prompt_to_be_answered_ends_where_the_answer_begins(processor, sound):
    question = Conversation("q", (user("Say", CLIP),))
    sample = processor.encode(question, [sound(0.3)], purpose="answer")
    assert set(sample.labels) == {IGNORE}
    assert processor.tokenizer.decode(sample.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    trained = processor.encode(spoken("yes"), [sound(0.3)])
    assert trained.ids[: len(sample.ids)] == sample.ids


@given(text=st.text(max_size=20))
def test_a_user_cannot_type_the_audio_token(processor, text):
    typed = f"<repo_name>{text}<repo_name>"
    sample = processor.encode(Conversation("x", (user(typed), assistant(typed))), [])
    assert count_of(processor, sample) == 0


def test_a_clip_too_many_or_too_few_is_refused(processor, sound):
    with pytest.raises(ValueError, match="'spoken' has 1 clips, and samples of"):
        processor.encode(spoken("yes"), [])


def test_a_saved_processor_is_loaded_equal(processor, build, sound, tmp_path):
    build().save_pretrained(tmp_path)
    before = processor.encode(spoken("yes"), [sound(0.3)])
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, SpeechLMProcessor)
    after = loaded.encode(spoken("yes"), [sound(0.3)])
    assert (after.ids, after.labels, after.ctc_targets) == (
        before.ids,
        before.labels,
        before.ctc_targets,
    )
    assert torch.equal(after.features[0], before.features[0])
    assert loaded.features_per_embedding == processor.features_per_embedding == 8


def test_the_audio_token_is_one_that_text_never_uses(processor):
    assert processor.audio_token == "<repo_name>"
    assert choose_audio_token(processor.tokenizer, "<file_sep>") == "<file_sep>"


@pytest.mark.parametrize("wanted", ["<none>", "a", "hello", "<|im_end|>"])
def test_a_token_that_text_may_hold_cannot_be_the_audio_token(processor, wanted):
    with pytest.raises(ValueError, match=rf"model.audio_token '{wanted}'".replace("|", r"\|")):
        choose_audio_token(processor.tokenizer, wanted)


def test_an_llm_with_no_unused_token_needs_one_named(processor):
    bare = PreTrainedTokenizerFast(tokenizer_object=processor.tokenizer.backend_tokenizer)
    bare.get_vocab = lambda: {"a": 0}
    with pytest.raises(ValueError, match="no unused token of the LLM is known; set"):
        choose_audio_token(bare, None)


def test_an_llm_is_no_encoder(tiny):
    with pytest.raises(ValueError, match="model.encoder '.*qwen2' is of kind 'qwen2'"):
        SpeechLMProcessor.from_parts(tiny(encoder="qwen2"))
