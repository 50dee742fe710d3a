from html.parser import HTMLParser

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.inspect import examine
from voicetextblender.data.view import draw, token_texts, waveform, write_view
from voicetextblender.prompt import Prompter

HOSTILE = '"></p></article><script>alert(1)</script><img src="https://x.example/y">'
VOID = {"meta", "input", "br", "rect", "path"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would find."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.tags, self.sources, self.articles, self.text = [], [], [], [], ""
        self.feed(markup)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag == "article":
            self.articles.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data


@pytest.fixture
def path(tmp_path, sound):
    """Three conversations: one sound, one hostile with a clip that is gone, one without clips."""
    audio.save(tmp_path / "a.wav", sound(0.5))
    (tmp_path / "broken.flac").write_bytes(b"fLaC and nothing more")
    gone, here = Audio("gone.wav", text=HOSTILE), Audio("a.wav", 0.1, 0.2, "here")
    talks = [
        Conversation("good", (user("Say:", here), assistant("here")), "asr", "en", {"voice": "v"}),
        Conversation(
            HOSTILE,
            (user(gone, HOSTILE, here, Audio("broken.flac")), assistant(HOSTILE)),
            HOSTILE,
            HOSTILE,
            {"speaker": HOSTILE, "license": HOSTILE},
        ),
        Conversation("typed", (user("Hm?"), assistant("Héllo 好 😀\n\n"))),
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(to_line, talks)), encoding="utf-8")
    return str(tmp_path / "set.jsonl")


@pytest.fixture
def read(path, tmp_path):
    def page(**settings):
        write_view([path], tmp_path / "out/view.html", **settings)
        return Reader((tmp_path / "out/view.html").read_text(encoding="utf-8"))

    return page


def test_the_page_holds_its_sound_and_fetches_nothing(read):
    page = read()
    assert page.tags.count("audio") == page.tags.count("svg") == 2
    assert all(
        source.startswith("data:audio/ogg;codecs=opus;base64,T2dn") for source in page.sources
    )


def test_text_from_the_data_never_becomes_markup(read, processor):
    page = read(prompter=Prompter(processor.tokenizer))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert page.text.count(HOSTILE) >= 4


def test_filters_find_what_they_need_on_each_conversation(read):
    good, hostile, typed = read().articles
    assert good["data-task"] == "asr" and good["data-language"] == "en"
    assert good["data-voice"] == "v" and good["data-failed"] == ""
    assert hostile["data-task"] == hostile["data-voice"] == hostile["data-language"] == HOSTILE
    assert typed["data-voice"] == "text only"


def test_missing_and_broken_audio_is_a_failed_check_and_not_the_end(read):
    page = read()
    assert page.articles[1]["data-failed"] == "broken audio|missing audio"
    assert "No sound: gone.wav" in page.text and "No sound: broken.flac" in page.text
    assert "missing audio (1)" in page.text and "none failed (2)" in page.text


def test_sound_that_only_decoding_shows_to_be_broken_is_a_failed_check(path, read, tmp_path):
    audio.save(tmp_path / "a.wav", np.full(8000, np.float32(0.5)))
    assert read().articles[0]["data-failed"] == ""
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[20:22], data[34:36] = (3).to_bytes(2, "little"), (32).to_bytes(2, "little")
    data[44:] = np.full(4000, np.nan, np.float32).tobytes()
    (tmp_path / "a.wav").write_bytes(data)
    assert read().articles[0]["data-failed"] == "broken audio"


def test_supervised_tokens_and_slots_are_shown_only_with_a_tokenizer(read, processor):
    assert "positions" not in read().text
    text = read(prompter=Prompter(processor.tokenizer)).text
    assert "clip 3" in text and "positions" in text


def test_the_texts_of_tokens_are_the_prompt_and_its_answers(path, processor):
    prompter = Prompter(processor.tokenizer)
    conversation = Conversation("a", (user("Hm 好?", Audio("a.wav")), assistant("Héllo 好 😀!")))
    prompt = prompter.encode(conversation)
    texts = token_texts(prompt.ids, prompt.labels, processor.tokenizer)
    assert "".join(text for text, is_on in texts if is_on) == "Héllo 好 😀!<|im_end|>"
    whole = "".join(text for text, _ in texts)
    assert "Hm 好?" in whole and "\ufffd" not in whole
    assert [text for text, _ in texts].count("") == 1


def test_a_limit_leaves_no_group_out_and_says_so(tmp_path):
    talks = [
        Conversation(f"{lang}{n}", (user("Hm?"), assistant(f"{lang} {n}")), lang=lang)
        for lang, count in (("en", 40), ("de", 1), ("fr", 5))
        for n in range(count)
    ]
    drawn = [each.conversation.id for each in draw(examine(talks), 6, seed=0)]
    assert {name[:2] for name in drawn} == {"en", "de", "fr"} and len(drawn) == 6
    assert drawn == [talk.id for talk in talks if talk.id in drawn]
    assert drawn == [each.conversation.id for each in draw(examine(talks), 6, seed=0)]
    assert drawn != [each.conversation.id for each in draw(examine(talks), 6, seed=1)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(to_line, talks)))
    assert write_view([str(tmp_path / "a.jsonl")], tmp_path / "a.html", limit=6) == 6
    page = Reader((tmp_path / "a.html").read_text())
    assert "6 of the 46 conversations" in page.text and len(page.articles) == 6


def test_two_pages_of_the_same_data_show_the_same(read):
    first, second = read(), read()  # an Opus encoder gives each stream a number by lot
    assert first.text == second.text and first.articles == second.articles


@pytest.mark.parametrize("samples", [np.zeros(9), np.ones(1), np.ones(100_000)])
def test_every_sound_has_a_waveform(samples):
    drawn = waveform(samples)
    assert "nan" not in drawn and drawn.count("L") < 500
