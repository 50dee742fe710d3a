"""The page: talk with a model by voice and by typing, transcribe, compare.

Gradio draws it and calls what is here; the model is behind four functions. What somebody says and
thinks of the answers is kept only if an opinion is given, and only in the folder that was named.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, Text, assistant, user
from voicetextblender.data.records import load_clips
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.captions import Captions, conversing
from voicetextblender.serve.engine import Engine
from voicetextblender.serve.feedback import Talk, keep
from voicetextblender.serve.labels import in_language
from voicetextblender.serve.transcribe import Task, Transcript, to_srt, to_vtt, transcribe
from voicetextblender.text import LANGUAGES

try:
    import gradio as gr
    from gradio.themes import Base
    from gradio.themes.utils import colors, sizes
except ModuleNotFoundError:
    raise ValueError(
        "the page needs Gradio, which is not installed; pip install 'voicetextblender[ui]'"
    ) from None

Ask = Callable[[Conversation, Sequence[np.ndarray], Decoding, bool], Iterator[str]]
"""Yields the answer to a conversation with its clips' samples; False is for the LLM alone."""
WriteDown = Callable[[str, str, str | None, Callable[[float], None]], Transcript]
"""Takes a recording's path, its language, one to translate to, and what is told the progress."""
Hear = Callable[[np.ndarray, str], str]
"""Maps samples at 16 kHz and a language to the words in them: the cascade's recogniser."""
Speak = Callable[[str], tuple[int, np.ndarray]]
"""Maps a text to samples per second and samples. Raises ValueError for what it cannot say."""

AUDIO_TYPES = ["audio", ".webm", ".m4a", ".opus", ".flac", ".ogg"]
_PROGRESS = gr.Progress()  # Gradio looks for it among the defaults of what it calls
REFRESH_S = 0.08  # between two updates of a growing answer: faster is not seen, and costs


@dataclass(frozen=True, slots=True)
class Page:
    """What the page works with."""

    name: str
    """Of the model."""
    folder: Path
    """Where conversations are kept that somebody had an opinion on."""
    ask: Ask
    write_down: WriteDown
    speak: Speak | None = None
    """Reads answers aloud."""
    hear: Hear | None = None
    """Compares; None where there is no LLM alone to compare with."""
    captions: Captions | None = None
    """Shows what was heard; None for a model that does not write clips down."""

    # --- talk ---

    def answer(
        self, message: dict[str, Any], talk: Talk, temperature: float, longest: int
    ) -> Iterator[list[dict[str, Any]]]:
        """Send a message with its recordings; yield the messages to show as the answer grows."""
        text, clips = message["text"].strip(), [Audio(path) for path in message["files"]]
        if text or clips:
            talk.turns.append(user(*([text] if text else []), *clips))
            yield from self.reply(talk, temperature, longest)

    def reply(self, talk: Talk, temperature: float, longest: int) -> Iterator[list[dict[str, Any]]]:
        """Answer the talk's last turn; what is there when it is stopped stays."""
        conversation = Conversation(talk.id, tuple(talk.turns))
        seed = time.time_ns() % (1 << 31) if temperature else 0
        text = ""
        yield shown(talk, text)
        try:
            clips = load_clips(conversation)
            if self.captions:
                words = map(self.captions.of, clips)
                paths = (clip.audio for clip in conversation.clips)
                talk.heard = dict(zip(paths, words, strict=True))
                yield shown(talk, text)
            decoding = Decoding(int(longest), temperature, seed=seed)
            pieces = self.ask(conversation, clips, decoding, True)
            updated = 0.0
            for piece in pieces:
                text += piece
                if time.monotonic() - updated > REFRESH_S:
                    updated = time.monotonic()
                    yield shown(talk, text)
        except (ValueError, OSError, RuntimeError) as error:
            if not text:
                talk.turns.pop()
            raise gr.Error(str(error)) from None
        finally:
            if text:
                talk.turns.append(assistant(text.strip()))
        yield shown(talk)

    def retry(
        self, talk: Talk, temperature: float, longest: int, at: gr.RetryData
    ) -> Iterator[list[dict[str, Any]]]:
        """Answer a turn once more."""
        talk.cut(turn_of(at.index) + 1)
        yield from self.reply(talk, temperature, longest)

    def undo(self, talk: Talk, at: gr.UndoData) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Take a turn back into the message field."""
        turn = talk.cut(turn_of(at.index))[0]
        text = "\n".join(part.text for part in turn.parts if isinstance(part, Text))
        return shown(talk), {"text": text, "files": [clip.audio for clip in turn.clips]}

    def judge(self, talk: Talk, at: gr.LikeData) -> None:
        """Keep what somebody thinks of an answer."""
        opinion = "good" if at.liked is True else "bad" if at.liked is False else None
        talk.judge(turn_of(at.index), opinion)
        self._keep(talk)

    def correct(
        self, talk: Talk, temperature: float, longest: int, at: gr.EditData
    ) -> Iterator[list[dict[str, Any]]]:
        """Keep what an answer should have been, or ask anew with one's own words changed."""
        number, text = turn_of(at.index), str(at.value).strip()
        if talk.turns[number].role == "assistant":
            talk.correct(number, text)
            self._keep(talk)
            yield shown(talk)
        else:
            turn = talk.cut(number)[0]
            talk.turns.append(user(*([text] if text else []), *turn.clips))
            yield from self.reply(talk, temperature, longest)

    def _keep(self, talk: Talk) -> None:
        path = keep(self.folder, talk, {"model": self.name, "made_with": "vtb ui"})
        if path is not None:
            gr.Info(f"{path}", duration=3)

    def read_aloud(self, talk: Talk, wanted: bool) -> tuple[int, np.ndarray] | None:
        """Speak the newest answer."""
        if not (wanted and self.speak and talk.turns and talk.turns[-1].role == "assistant"):
            return None
        (said,) = talk.turns[-1].parts
        assert isinstance(said, Text)
        try:
            return self.speak(said.text)
        except ValueError as error:
            gr.Info(str(error))
            return None

    # --- transcribe ---

    def transcribe(
        self,
        path: str | None,
        language: str,
        task: str,
        target: str,
        progress: Callable[[float], None],
    ) -> tuple[Any, ...]:
        """Write a recording down; return text, table, captioned recording and four files."""
        if path is None:
            raise gr.Error("Record something first, or choose a file")
        into = target if task == "translated" else None
        try:
            made = self.write_down(path, language, into, progress)
        except (ValueError, OSError, RuntimeError) as error:
            raise gr.Error(str(error)) from None
        rows = [[clock(s.start), clock(s.end), s.text] for s in made.segments]
        files = written(made, Path(path).stem)
        captioned = gr.Audio(path, subtitles=files[1] if rows else None, visible=True)
        buttons = [gr.DownloadButton(value=file, interactive=True) for file in files]
        return made.text, rows, captioned, *buttons

    # --- compare ---

    def compare(self, path: str | None, typed: str, language: str) -> Iterator[list[str]]:
        """Ask one question four ways; yield the question as typed, then the four answers."""
        if path is None:
            raise gr.Error("Record a question first, or choose a file")
        try:
            clip = load(path)
            heard = self.hear(clip, language) if self.hear else ""
        except (ValueError, OSError) as error:
            raise gr.Error(str(error)) from None
        typed = typed.strip() or heard
        lanes = [
            (user(Audio(path)), [clip], True),
            (user(typed), [], True),
            (user(typed), [], False),
            (user(heard), [], False),
        ]
        texts = [""] * len(lanes)

        def run(lane: int) -> None:
            turn, clips, voice = lanes[lane]
            asked = Conversation(f"compare-{lane}", (turn,))
            for piece in self.ask(asked, clips, Decoding(128), voice):
                texts[lane] += piece

        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [pool.submit(run, lane) for lane in range(len(lanes))]
            while not all(one.done() for one in running):
                time.sleep(REFRESH_S)
                yield [typed, *texts]
            try:
                for one in running:
                    one.result()
            except (ValueError, OSError, RuntimeError) as error:
                raise gr.Error(str(error)) from None
        yield [typed, *texts]


def answering(engine: Engine, captions: Captions | None = None) -> Ask:
    """Return what answers with an engine; `captions` are those that are shown."""
    submit = conversing(engine, captions)

    def ask(
        conversation: Conversation, clips: Sequence[np.ndarray], decoding: Decoding, voice: bool
    ) -> Iterator[str]:
        asked = submit(conversation, clips, decoding, voice=voice)
        yield from (chunk.text for chunk in asked)

    return ask


def writing(engine: Engine) -> WriteDown:
    """Return what writes recordings down, or translates them, with an engine."""

    def write_down(
        path: str, language: str, into: str | None, progress: Callable[[float], None]
    ) -> Transcript:
        return transcribe(engine, path, Task(language, into), progress)

    return write_down


def shown(talk: Talk, growing: str | None = None) -> list[dict[str, Any]]:
    """Return the talk as Gradio's messages, one a turn, with the answer that grows."""
    messages = [
        {"role": turn.role, "content": [p for part in turn.parts for p in _shown(part, talk)]}
        for turn in talk.turns
    ]
    if growing is not None:
        messages.append({"role": "assistant", "content": growing or "…"})
    return messages


def _shown(part: Text | Audio, talk: Talk) -> list[str | dict[str, str]]:
    """Return text, or a recording and what was heard in it."""
    if isinstance(part, Text):
        return [part.text]
    words = talk.heard.get(part.audio)
    return [{"path": part.audio}, *([f"“{words}”"] if words else [])]


def turn_of(index: int | tuple[int, int] | list[int]) -> int:
    """Return the number of the turn that Gradio's index of a message means."""
    return index if isinstance(index, int) else index[0]


def clock(seconds: float) -> str:
    """Return 75.2 as 1:15.2."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def written(made: Transcript, stem: str) -> list[str]:
    """Write a transcript as text, SRT, VTT and JSON; return the paths."""
    folder = Path(tempfile.mkdtemp(prefix="vtb-"))
    contents = {
        "txt": made.text + "\n",
        "srt": to_srt(made),
        "vtt": to_vtt(made),
        "json": json.dumps(made.to_json(), ensure_ascii=False, indent=1),
    }
    paths = [folder / f"{stem}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(content, encoding="utf-8")
    return [str(path) for path in paths]


def build(page: Page) -> gr.Blocks:
    """Return the page, ready to be launched."""
    t: Any = gr.I18n(en=in_language(0), ko=in_language(1))
    with gr.Blocks(title="voicetextblender", analytics_enabled=False) as blocks:
        gr.HTML(
            f"<header><h1>voicetextblender</h1><p>{escape(page.name)}</p></header>",
            elem_id="head",
        )
        with gr.Tabs():
            with gr.Tab(t("talk")):
                _talk_tab(page, t)
            with gr.Tab(t("transcribe")):
                _transcribe_tab(page, t)
            if page.hear:
                with gr.Tab(t("compare")):
                    _compare_tab(page, t)
    return blocks


def _talk_tab(page: Page, t: Any) -> None:
    sent = gr.State()
    talk = gr.State(lambda: Talk())  # a new one for each visitor
    chat = gr.Chatbot(
        label=t("conversation"),
        show_label=False,
        elem_id="chat",
        height="58vh",
        min_height=320,
        layout="bubble",
        placeholder=t("hello"),
        editable="all",
        buttons=["copy"],
        allow_tags=False,
    )
    message = gr.MultimodalTextbox(
        label=t("message"),
        placeholder=t("message_hint"),
        elem_id="message",
        sources=["microphone", "upload"],
        file_types=AUDIO_TYPES,
        file_count="multiple",
        autofocus=True,
        show_label=False,
    )
    spoken = gr.Audio(label=t("aloud_label"), autoplay=True, visible=False, elem_id="spoken")
    with gr.Row(equal_height=True):
        aloud = gr.Checkbox(False, label=t("aloud"), visible=page.speak is not None)
        new = gr.Button(t("new"), size="md", scale=0, min_width=180)
    with gr.Accordion(t("settings"), open=False):
        temperature = gr.Slider(
            0, 1.5, 0, step=0.1, label=t("temperature"), info=t("temperature_hint")
        )
        longest = gr.Slider(16, 512, 192, step=16, label=t("longest"))
    gr.Markdown(t("opinion_hint"), elem_classes="quiet")
    how = [talk, temperature, longest]
    begun = message.submit(_busy, message, [message, sent])
    asked = begun.then(page.answer, [sent, *how], chat)
    retried = chat.retry(page.retry, how, chat)
    corrected = chat.edit(page.correct, how, chat)
    for event in (asked, retried):
        event.then(page.read_aloud, [talk, aloud], spoken)
    asked.then(_idle, None, message)
    message.stop(_idle, None, message, cancels=[asked, retried, corrected])
    chat.undo(page.undo, talk, [chat, message])
    chat.like(page.judge, talk, None)
    for clear in (new.click, chat.clear):
        clear(lambda: (Talk(), [], None), None, [talk, chat, spoken])


def _busy(message: dict[str, Any]) -> tuple[gr.MultimodalTextbox, dict[str, Any]]:
    """Empty the field, and let the answer be stopped."""
    return gr.MultimodalTextbox(None, stop_btn=True, submit_btn=False), message


def _idle() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(stop_btn=False, submit_btn=True)


def _transcribe_tab(page: Page, t: Any) -> None:
    languages = [(name, code) for code, name in LANGUAGES.items()]
    gr.Markdown(t("transcribe_lead"), elem_classes="quiet")
    with gr.Row():
        with gr.Column(scale=2):
            recording = gr.Audio(
                type="filepath", label=t("recording"), elem_id="recording", buttons=["download"]
            )
            language = gr.Dropdown(languages, value="en", label=t("spoken_language"))
            task = gr.Radio(
                [(t("as_said"), "as_said"), (t("translated"), "translated")],
                value="as_said",
                label=t("task"),
            )
            target = gr.Dropdown(languages, value="en", label=t("into"), visible=False)
            write = gr.Button(t("write"), variant="primary")
        with gr.Column(scale=3):
            text = gr.Textbox(label=t("text"), lines=6, buttons=["copy"], elem_id="transcript")
            captioned = gr.Audio(
                label=t("captions"), interactive=False, visible=False, buttons=["download"]
            )
            segments = gr.Dataframe(headers=["from", "to", "text"], label=t("segments"), wrap=True)
            with gr.Row():
                files = [
                    gr.DownloadButton(suffix, interactive=False, size="sm", min_width=80)
                    for suffix in ("TXT", "SRT", "VTT", "JSON")
                ]

    def run(path: str | None, *how: str, progress: Any = _PROGRESS) -> tuple[Any, ...]:
        return page.transcribe(path, *how, progress=progress)

    task.change(lambda chosen: gr.Dropdown(visible=chosen == "translated"), task, target)
    write.click(run, [recording, language, task, target], [text, segments, captioned, *files])


def _compare_tab(page: Page, t: Any) -> None:
    languages = [(name, code) for code, name in LANGUAGES.items()]
    gr.Markdown(t("compare_lead"), elem_classes="quiet")
    with gr.Row():
        with gr.Column(scale=1):
            question = gr.Audio(
                type="filepath", label=t("question"), elem_id="question", buttons=["download"]
            )
        with gr.Column(scale=1):
            typed = gr.Textbox(label=t("typed"), placeholder=t("typed_hint"), lines=3)
            language = gr.Dropdown(languages, value="en", label=t("spoken_language"))
            ask = gr.Button(t("ask_all"), variant="primary")
    lanes = []
    for pair in (("spoken_answer", "typed_answer"), ("base_answer", "cascade_answer")):
        with gr.Row(equal_height=True):
            lanes += [gr.Textbox(label=t(name), lines=4, elem_classes="lane") for name in pair]
    ask.click(page.compare, [question, typed, language], [typed, *lanes])


def launch(page: Page, host: str, port: int | None, **options: Any) -> gr.Blocks:
    """Serve the page, until interrupted unless `prevent_thread_lock` is given."""
    blocks = build(page)
    blocks.launch(
        server_name=host,
        server_port=port,
        i18n=gr.I18n(en=in_language(0), ko=in_language(1)),
        theme=theme(),
        css_paths=Path(__file__).with_name("ui.css"),
        head=HEAD,
        footer_links=["settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="500mb",
        share=False,
        **options,
    )
    return blocks


def theme() -> Base:
    """Return the colours and letters; nothing is fetched from a network."""
    font = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans KR", "sans-serif"]
    return Base(
        primary_hue=colors.blue,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_lg,
        font=font,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",  # 4.5 : 1 and better, as WCAG asks
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


HEAD = "<script>document.documentElement.lang = navigator.language.slice(0, 2)</script>"
