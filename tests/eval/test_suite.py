from pathlib import Path

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.eval.suite import (
    EvalSet,
    Suite,
    digest,
    load_suite,
    read_items,
    reference,
    shortened,
    write_items,
)

TALK = Conversation(
    "a", (user("Say:", Audio("clips/a.wav", text="hi")), assistant("hi")), "asr", "en"
)


def test_the_paths_of_a_suite_are_relative_to_its_file(tmp_path):
    path = tmp_path / "suites/my.yaml"
    path.parent.mkdir()
    path.write_text(
        "name: mine\nsets: [{name: calls, path: ../calls.jsonl, speech: real, scorer: wer}]\n"
    )
    suite = load_suite(path)
    assert suite.sets[0].path == str(tmp_path / "suites/../calls.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{name: a, path: b, speech: real, scorer: wer, nam: 2}", "did you mean 'name'"),
        ("{name: a, speech: real, scorer: wer}", "'a' must have 'path', or 'make', or both"),
        ("{name: a/b, path: b, speech: real, scorer: wer}", "'sets.0.name'"),
        ("{name: a, path: b, speech: loud, scorer: wer}", "'sets.0.speech'.*'real'"),
    ],
)
def test_a_suite_that_will_not_do_is_refused(tmp_path, line, message):
    (tmp_path / "my.yaml").write_text(f"name: mine\nsets:\n  - {line}\n")
    with pytest.raises(ValueError, match=message):
        load_suite(tmp_path / "my.yaml")


def test_a_suite_asks_the_sets_of_those_that_it_includes_first(tmp_path):
    one = "sets: [{name: one, path: one.jsonl, speech: real, scorer: wer}]\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.yaml").write_text(f"name: one\n{one}")
    two = "sets: [{name: two, path: two.jsonl, speech: real, scorer: wer}]\n"
    (tmp_path / "both.yaml").write_text(f"name: both\ninclude: [a/one.yaml]\n{two}")
    suite = load_suite(tmp_path / "both.yaml")
    assert [Path(of.path) for of in suite.sets] == [
        tmp_path / "a/one.jsonl",
        tmp_path / "two.jsonl",
    ]
    assert (suite.name, suite.include) == ("both", ())
    (tmp_path / "both.yaml").write_text(f"name: both\ninclude: [a/one.yaml]\n{one}")
    with pytest.raises(ValueError, match="both.yaml: .*sets name 'one' twice"):
        load_suite(tmp_path / "both.yaml")


def test_two_sets_of_one_name_are_refused():
    one = EvalSet(name="a", path="a.jsonl", speech="real", scorer="wer")
    with pytest.raises(ValueError, match="sets name 'a' twice; each set needs its own name"):
        Suite(name="mine", sets=(one, one))


def test_items_lie_beside_their_predictions_and_find_their_clips(tmp_path):
    (tmp_path / "calls.jsonl").write_text(to_line(TALK))
    of = EvalSet(name="calls", path=str(tmp_path / "calls.jsonl"), speech="real", scorer="wer")
    (item,) = write_items(of, tmp_path / "deep/out")
    assert '"../../../clips/a.wav"' in (tmp_path / "deep/out/items/calls.jsonl").read_text()
    assert item == read_items(tmp_path / "deep/out", "calls")[0]
    (tmp_path / "deep/out/items/x").mkdir()
    assert item.clips[0].audio.endswith("items/../../../clips/a.wav")


def test_the_digest_is_of_the_words_and_not_of_the_folder(tmp_path):
    (tmp_path / "calls.jsonl").write_text(to_line(TALK))
    of = EvalSet(name="calls", path=str(tmp_path / "calls.jsonl"), speech="real", scorer="wer")
    one, other = (digest(write_items(of, tmp_path / name)) for name in ("a", "b/c"))
    assert one == other
    assert one != digest([Conversation("a", (user("Say:"), assistant("hi")), "asr", "en")])


def test_every_line_of_a_text_is_an_item(tmp_path):
    (tmp_path / "text.txt").write_text("One line.\n\nAnother.\n")
    of = EvalSet(name="text", path=str(tmp_path / "text.txt"), speech="none", scorer="perplexity")
    items = write_items(of, tmp_path / "out")
    assert [(item.id, reference(item)) for item in items] == [
        ("passage-1", "One line."),
        ("passage-2", "Another."),
    ]


def test_a_set_is_made_once_and_made_again_with_other_settings(tmp_path, voice):
    of = EvalSet(name="sums", make="sums", number=2, speech="synthetic", scorer="check")
    items = write_items(of, tmp_path)
    said = len(voice.said)
    assert len(items) == said == 2 and write_items(of, tmp_path) == items
    assert len(voice.said) == said
    assert write_items(of.model_copy(update={"seed": 1}), tmp_path) != items
    assert len(voice.said) == 2 * said


def test_a_suite_that_comes_to_include_itself_is_refused(tmp_path):
    (tmp_path / "one.yaml").write_text("name: one\ninclude: [two.yaml]\n")
    (tmp_path / "two.yaml").write_text("name: two\ninclude: [one.yaml]\n")
    with pytest.raises(ValueError, match=r"one.yaml: a suite cannot include itself; take it out"):
        load_suite(tmp_path / "one.yaml")


def test_a_shortened_suite_asks_no_more_of_any_set():
    sets = [EvalSet(name=f"{n}", path="a", speech="real", scorer="wer", limit=n) for n in (3, 9)]
    whole = EvalSet(name="all", path="a", speech="real", scorer="wer")
    short = shortened(Suite(name="mine", sets=(*sets, whole)), 5)
    assert [(one.limit, one.number) for one in short.sets] == [(3, 5), (5, 5), (5, 5)]


def test_a_shortened_suite_keeps_five_clips_in_every_condition():
    made = [
        EvalSet(name=name, make=name, path=path, number=number, speech="real", scorer="wer")
        for name, path, number in (("conditions", "a", 12), ("nothing", None, 42))
    ]
    short = shortened(Suite(name="mine", sets=tuple(made)), 2)
    assert [(one.limit, one.number) for one in short.sets] == [(None, 5), (None, 35)]


def test_a_suite_may_be_included_on_two_ways(tmp_path):
    sets = "sets: [{name: calls, path: calls.jsonl, speech: real, scorer: wer}]"
    (tmp_path / "below.yaml").write_text("name: below\n")
    (tmp_path / "left.yaml").write_text(f"name: left\ninclude: [below.yaml]\n{sets}\n")
    (tmp_path / "top.yaml").write_text("name: top\ninclude: [left.yaml, below.yaml]\n")
    assert [one.name for one in load_suite(tmp_path / "top.yaml").sets] == ["calls"]
