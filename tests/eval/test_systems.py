import pytest
import torch

from voicetextblender import audio
from voicetextblender.batch import collate
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.eval.run import evaluate
from voicetextblender.eval.suite import EvalSet, Suite
from voicetextblender.eval.systems import choice_log_probs, describe, systems
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.text import transcribe_instruction


@pytest.fixture
def item(tmp_path, sound) -> Conversation:
    audio.save(tmp_path / "a.wav", sound(0.5))
    clip = Audio(str(tmp_path / "a.wav"), text="hello")
    return Conversation("a", (user("Say: ", clip), assistant("hello")), "sqa", "en")


def asked(item):
    return Conversation(item.id, item.messages[:-1], item.task, item.lang)


def test_each_system_reads_what_its_name_says(build, processor, item, tmp_path):
    model = build()
    known = systems(model, processor, "whisper-base")
    heard = processor.encode(asked(item), [audio.load(tmp_path / "a.wav")], purpose="answer")
    typed = processor.encode(asked(item).typed(), [], purpose="answer")
    expected = {
        "ours": answers(model, processor, [heard], Decoding(5)),
        "typed": answers(model, processor, [typed], Decoding(5)),
    }
    assert known["ours"].decoding == "greedy, LoRA merged" and known["base"].decoding == "greedy"
    with model.voice_off():
        expected["base"] = answers(model, processor, [typed], Decoding(5))
    found = {name: known[name].answer([asked(item)], 5) for name in expected}
    assert found == expected
    assert expected["typed"] != expected["base"]


@pytest.fixture
def detector(monkeypatch):
    """Have the detector of speech hear somebody, or nobody."""

    def hears(somebody):
        found = lambda frame: float(somebody)  # noqa: E731
        monkeypatch.setattr("voicetextblender.speech.build_detector", lambda: found)

    return hears


def test_as_it_is_served_a_model_writes_nothing_down_where_nobody_speaks(
    build, processor, item, detector
):
    known = systems(build(), processor, "whisper-base")
    transcript = Conversation("t", (user(transcribe_instruction("en"), *item.clips),))
    both = [transcript, asked(item)]
    detector(False)
    heard = known["direct"].answer(both, 5)
    assert all(heard) and known["ours"].answer(both, 5) == ["", heard[1]]
    detector(True)
    assert known["ours"].answer(both, 5) == heard


def test_a_captioned_clip_is_read_with_the_models_own_transcript_behind_it(
    build, processor, item, detector
):
    detector(True)
    model = build()
    instruction = transcribe_instruction("en")
    heard = systems(model, processor, "whisper-base")["direct"]
    caption = heard.answer([Conversation("t", (user(instruction, *item.clips),))], 128)
    wanted = heard.answer([asked(item).captioned(caption)], 5)
    assert caption != [""] and wanted != heard.answer([asked(item)], 5)
    assert systems(model, processor, "whisper-base")["captioned"].answer([asked(item)], 5) == wanted
    model.config.settings = {**model.config.settings, "captions": True}
    ours = systems(model, processor, "whisper-base")["ours"]
    assert ours.answer([asked(item)], 5) == wanted and "clips captioned" in ours.model


def test_a_choice_has_the_same_log_probability_alone_and_in_a_batch(build, processor, item):
    model = build()
    items = [
        Conversation("a", item.messages, meta={"choices": ["hello", "no"]}),
        Conversation("b", (user("1 + 1?"), assistant("2")), meta={"choices": ["2", "3", "4 5"]}),
    ]
    together = choice_log_probs(model, processor, items)
    assert [len(row) for row in together] == [2, 3]
    for item, row in zip(items, together, strict=True):
        assert choice_log_probs(model, processor, [item])[0] == pytest.approx(row, abs=1e-4)


def test_log_probabilities_are_those_of_the_logits(build, processor):
    model = build()
    item = Conversation("b", (user("1 + 1?"), assistant("2")), meta={"choices": ["2", "no"]})
    sample = processor.encode(Conversation("b", (user("1 + 1?"), assistant("no"))), [])
    batch = collate([sample], processor.num_mel_bins)
    with torch.inference_mode():
        logs = model(batch.input_ids[None]).logits[0].log_softmax(-1)
    wanted = sum(logs[n, label].item() for n, label in enumerate(sample.labels) if label >= 0)
    assert choice_log_probs(model, processor, [item])[0][1] == pytest.approx(wanted, abs=1e-4)


def test_a_model_in_training_mode_is_refused(build, processor):
    with pytest.raises(ValueError, match=r"training mode.*call model.eval\(\) first"):
        systems(build().train(), processor, "whisper-base")


def test_a_model_is_described_by_its_parts_and_its_weights(build):
    one, other = build(), build()
    assert describe(one) == describe(other)
    other.trained_parts()["adapter"][0].data += 1
    assert describe(one) != describe(other)


def test_a_suite_is_asked_of_every_system_that_makes_sense(build, processor, item, tmp_path):
    (tmp_path / "talk.jsonl").write_text(to_line(item))
    of = EvalSet(
        name="talk", path=str(tmp_path / "talk.jsonl"), speech="synthetic", scorer="qa",
        max_new_tokens=4,
    )  # fmt: skip
    suite, told = Suite(name="mine", sets=(of,)), []
    scores = evaluate(
        build(), processor, suite, tmp_path / "out", only=("ours", "direct", "typed", "base"),
        report=lambda *state: told.append(state),
    )  # fmt: skip
    assert {score.system for score in scores} == {"ours", "direct", "typed", "base"}
    assert {s.against for s in scores if s.system == "ours"} == {None, "direct", "typed", "base"}
    assert told[0] == (0.0, "making talk")
    assert told[-1] == (pytest.approx(1.0), "talk, direct")
    assert all("at most 4 tokens" in score.decoding for score in scores)


def test_an_unknown_system_is_refused_before_anything_is_asked(build, processor, item, tmp_path):
    (tmp_path / "talk.jsonl").write_text(to_line(item))
    of = EvalSet(
        name="talk", path=str(tmp_path / "talk.jsonl"), speech="real", scorer="qa", systems=("our",)
    )
    with pytest.raises(
        ValueError, match="set 'talk': 'our' is no system; use ours, direct, captioned, typed"
    ):
        evaluate(build(), processor, Suite(name="m", sets=(of,)), tmp_path / "out")
    with pytest.raises(ValueError, match="'typd' is no system; use ours"):
        evaluate(build(), processor, Suite(name="m"), tmp_path / "out", only=["ours", "typd"])
    assert not (tmp_path / "out/predictions").exists()
