"""The page: its answers with a tiny model, and all of it in a real browser with a microphone."""

import gc
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio
from voicetextblender.serve.feedback import Talk
from voicetextblender.serve.labels import LABELS, in_language
from voicetextblender.serve.transcribe import Segment, Transcript


def test_every_label_is_there_in_both_languages():
    assert all(english and korean for english, korean in LABELS.values())
    assert in_language(0).keys() == in_language(1).keys()


def test_without_gradio_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "voicetextblender.serve.ui", raising=False)
    with pytest.raises(ValueError, match=r"needs Gradio.*voicetextblender\[ui\]"):
        import voicetextblender.serve.ui  # noqa: F401


@pytest.fixture
def page(start, tmp_path):
    from voicetextblender.serve.ui import Page, answering

    def write_down(path, language, target, progress):
        progress(1.0)
        return Transcript(path, "one two", language, 0.5, (Segment(0.0, 0.5, "one two"),))

    return Page(
        "tiny",
        tmp_path / "kept",
        answering(start()),
        write_down,
        speak=lambda text: (16_000, np.full(160, len(text), np.float32)),
        hear=lambda samples, language: f"{len(samples)} {language}",
    )


@pytest.fixture
def clip(tmp_path, sound):
    path = tmp_path / "clip.wav"
    audio.save(path, sound(0.5))
    return str(path)


def say(page, talk, text, *clips):
    return list(page.answer({"text": text, "files": list(clips)}, talk, 0.0, 16))


@pytest.mark.slow
def test_a_turn_is_typed_spoken_or_both_and_the_answer_grows(page, clip):
    from voicetextblender.serve.feedback import Talk

    talk = Talk()
    first = say(page, talk, "hello")
    assert first[0][-1]["content"] == "…" and first[-1][-1]["role"] == "assistant"
    say(page, talk, "", clip)
    say(page, talk, "and these?", clip, clip)
    assert [len(turn.clips) for turn in talk.turns] == [0, 0, 1, 0, 2, 0]
    shown = say(page, talk, "  ")
    assert shown == [] and len(talk.turns) == 6


@pytest.mark.slow
def test_what_a_captioning_model_heard_is_shown_below_the_recording(page, start, clip):
    from voicetextblender.serve.captions import captioning

    assert captioning(start()) is None
    captions = captioning(start(captions=True))
    samples = audio.load(clip)
    captions.correct(samples, "8000 words")  # so it need not be heard
    heard = replace(page, captions=captions)
    talk = Talk()
    assert say(heard, talk, "Well?", clip)[-1][0]["content"] == [
        "Well?",
        {"path": clip},
        "“8000 words”",
    ]
    assert talk.turns[0].parts[1] == Audio(clip)  # it may be wrong, and is not for training
    assert "words" not in str(say(page, Talk(), "Well?", clip)[-1])


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(page):
    from voicetextblender.serve.feedback import Talk

    talk = Talk()
    answering = page.answer({"text": "hello", "files": []}, talk, 0.0, 512)
    while "…" in next(answering)[-1]["content"]:
        pass
    answering.close()
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]


@pytest.mark.slow
def test_a_bad_recording_is_told_and_nothing_is_left_of_its_turn(page, tmp_path):
    import gradio as gr

    from voicetextblender.serve.feedback import Talk

    (tmp_path / "bad.wav").write_bytes(b"no sound")
    talk = Talk()
    with pytest.raises(gr.Error, match=r"bad\.wav"):
        say(page, talk, "listen", str(tmp_path / "bad.wav"))
    assert talk.turns == []


@pytest.mark.slow
def test_opinions_and_corrections_are_kept_for_training(page, clip, monkeypatch):
    import gradio as gr

    from voicetextblender.data.records import Records
    from voicetextblender.serve.feedback import Talk

    monkeypatch.setattr(gr, "Info", lambda *words, **how: None)
    talk = Talk()
    say(page, talk, "what is said?", clip)
    page.judge(talk, SimpleNamespace(index=1, liked=False))
    assert len(Records(str(page.folder / "bad.jsonl"))) == 1
    list(
        page.correct(
            talk, 0.0, 16, SimpleNamespace(index=[1, 0], previous_value="", value="a tone")
        )
    )
    (line,) = (page.folder / "good.jsonl").read_text().splitlines()
    assert json.loads(line)["messages"][1]["content"] == "a tone"
    list(
        page.correct(
            talk, 0.0, 16, SimpleNamespace(index=0, previous_value="", value="what is said?")
        )
    )
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]
    shown, back = page.undo(talk, SimpleNamespace(index=0))
    assert shown == [] and back == {"text": "what is said?", "files": [clip]}


@pytest.mark.slow
def test_four_ways_of_asking_answer_together(page, clip):
    steps = list(page.compare(clip, "", "en"))
    assert steps[-1][0] == "8000 en" and len(steps[-1]) == 5
    assert steps[-1][3] == steps[-1][4]  # the base model was typed to what was heard: the cascade
    assert list(page.compare(clip, "hello", "en"))[-1][0] == "hello"


@pytest.mark.slow
def test_a_recording_is_written_in_four_formats(page, clip):
    text, rows, _, *files = page.transcribe(clip, "en", "as_said", "de", lambda share: None)
    paths = [Path(file.value["path"]) for file in files]
    assert [path.suffix for path in paths] == [".txt", ".srt", ".vtt", ".json"]
    record = json.loads(paths[3].read_text())
    assert record["text"] == text and len(record["segments"]) == len(rows)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream "
    "--use-fake-ui-for-media-stream"
)
SHOTS = os.environ.get("VTB_SHOTS")
in_browser = pytest.mark.filterwarnings(  # Gradio leaves its loops and sockets to the collector
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def address(page):
    from voicetextblender.serve.ui import launch

    blocks = launch(page, "127.0.0.1", None, prevent_thread_lock=True, quiet=True)
    yield blocks.local_url
    blocks.close(verbose=False)
    del blocks
    gc.collect()  # here, where its warnings are expected


@pytest.fixture
def browser(clip):
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    with api.sync_playwright() as playwright:
        flags = [*QUIET.split(), f"--use-file-for-fake-audio-capture={clip}"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


def visit(browser, address, locale, **how):
    """Open the page; return it with the list of addresses elsewhere that it asked for."""
    how = {"viewport": {"width": 1180, "height": 920}, "permissions": ["microphone"]} | how
    tab = browser.new_context(locale=locale, **how).new_page()
    tab.set_default_timeout(120_000)
    elsewhere = []
    tab.on(
        "request",
        lambda request: (
            request.url.startswith((address, "data:", "blob:")) or elsewhere.append(request.url)
        ),
    )
    tab.goto(address)
    tab.wait_for_selector("#message textarea")
    return tab, elsewhere


def look(tab, name):
    if SHOTS:
        tab.wait_for_timeout(1500)
        tab.screenshot(path=f"{SHOTS}/{name}.png")


def answered(tab, number):
    """Wait until there are so many answers, the last of them complete."""
    tab.wait_for_function(
        """n => document.querySelectorAll("#chat [data-testid=bot]").length >= n
        && !document.querySelector("#message [aria-label=Stop]")""",
        arg=number,
    )


@in_browser
@pytest.mark.slow
def test_a_whole_conversation_in_a_browser_typed_spoken_and_both(page, address, browser, clip):
    tab, elsewhere = visit(browser, address, "en-US")
    look(tab, "1-empty")
    tab.fill("#message textarea", "hello")
    tab.keyboard.press("Enter")
    answered(tab, 1)
    tab.set_input_files("#message input[type=file]", [clip, clip])
    tab.wait_for_selector("#message .thumbnail-item >> nth=1")
    tab.fill("#message textarea", "What is said in these two?")
    look(tab, "2-attached")
    tab.keyboard.press("Enter")
    answered(tab, 2)
    tab.get_by_label("Record audio").click()
    tab.get_by_label("Start recording").click()
    tab.wait_for_timeout(1500)
    tab.get_by_label("Stop recording").click()
    tab.get_by_label("Attach audio").click()
    tab.wait_for_selector("#message .thumbnail-item")
    look(tab, "3-recorded")
    tab.get_by_label("Submit").click()
    answered(tab, 3)
    look(tab, "4-talk")
    tab.get_by_role("button", name="Like", exact=True).last.click()
    for _ in range(100):
        if (page.folder / "good.jsonl").exists():
            break
        time.sleep(0.1)
    from voicetextblender.data.records import Records, load_clips

    kept = Records(str(page.folder / "good.jsonl"))[0]
    assert [len(turn.clips) for turn in kept.messages] == [0, 0, 2, 0, 1, 0]
    assert len(load_clips(kept)[2]) > 8_000
    assert elsewhere == []


@in_browser
@pytest.mark.slow
def test_the_page_transcribes_and_compares_in_korean_and_in_the_dark(page, address, browser, clip):
    tab, elsewhere = visit(browser, address, "ko-KR", color_scheme="dark")
    look(tab, "5-korean")
    tab.click("button[role=tab]:has-text('받아쓰기')")
    tab.set_input_files("#recording input[type=file]", clip)
    tab.click("button:has-text('받아쓰기 시작')")
    tab.wait_for_function("document.querySelector('#transcript textarea').value != ''")
    look(tab, "6-transcript")
    tab.click("button[role=tab]:has-text('비교')")
    tab.set_input_files("#question input[type=file]", clip)
    tab.click("button:has-text('넷 모두에게 묻기')")
    tab.wait_for_function(
        "[...document.querySelectorAll('.lane textarea')].filter(t => t.value).length == 4"
    )
    look(tab, "7-compare")
    assert elsewhere == []
