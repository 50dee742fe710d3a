import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.cli import main


def vtb(monkeypatch, *words):
    """Run the command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["vtb", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.fixture
def model(tmp_path, build, processor):
    folder = tmp_path / "model"
    build().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_help_answers_at_once():
    times = []
    for words in (["-c", "pass"], ["-m", "voicetextblender.cli", "--help"]):
        best = float("inf")
        for _ in range(3):
            began = os.times()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            ended = os.times()  # of the processor, not the clock: others may be at work too
            best = min(best, ended.children_user - began.children_user)
        times.append(best)
    assert times[1] - times[0] < 1.0  # 0.2 s on an idle machine; no torch, which takes 2 s


def test_every_verb_has_help_with_an_example(monkeypatch, capsys):
    made = ("asr", "ast", "translate", "sqa", "mixed", "chat", "robust")
    synth = [["synth", verb] for verb in made]
    use = (["transcribe"], ["translate"], ["chat"], ["serve"], ["ui"], ["export"])
    for verb in (["train"], *use, ["data", "import"], *synth):
        assert vtb(monkeypatch, *verb, "--help") == 0
        assert "Example: vtb" in capsys.readouterr().out


def test_transcribe_writes_nothing_but_the_result_and_goes_on_past_a_bad_file(
    monkeypatch, capsys, model, tmp_path, sound
):
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    audio.save(good, sound(0.5))
    bad.write_bytes(b"")
    assert vtb(monkeypatch, "transcribe", bad, good, "--model", model, "--format", "json") == 1
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record.keys() == {"file", "text", "language", "duration_s", "segments"}
    assert record["file"] == str(good)
    assert "Error:" in err and "bad.wav" in err and "Traceback" not in err


def vtb_for_nobody(monkeypatch, *words):
    """Run the command with a standard output whose reader has gone, as after `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    out = os.fdopen(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        code = vtb(patch, *words)
    with contextlib.suppress(BrokenPipeError):
        out.close()
    return code


def test_a_reader_that_goes_away_ends_the_command_without_a_word(
    monkeypatch, capsys, model, tmp_path, sound
):
    clip = tmp_path / "a.wav"
    audio.save(clip, sound(0.5))
    words = ("transcribe", clip, clip, "--model", model, "--format", "json")
    assert vtb_for_nobody(monkeypatch, *words) == 1
    told = capsys.readouterr().err
    assert "Error" not in told and told.count("100%") == 1  # the second is not begun


def test_what_is_still_to_be_written_at_the_end_fails_without_a_word(monkeypatch, capsys, tmp_path):
    line = {"id": "a", "messages": [{"role": "user", "content": "a"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    words = ("data", "inspect", tmp_path / "a.jsonl", "--json")
    assert vtb_for_nobody(monkeypatch, *words) == 1
    assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_silence_gives_an_empty_transcript_in_every_format(
    monkeypatch, capsys, model, tmp_path, format
):
    silence = tmp_path / "silence.wav"
    audio.save(silence, np.zeros(16_000, dtype=np.float32))
    assert vtb(monkeypatch, "transcribe", silence, "--model", model, "--format", format) == 0
    assert capsys.readouterr().out.strip() in ("", "WEBVTT")


def test_a_folder_and_standard_input_are_transcribed_into_files(
    monkeypatch, model, tmp_path, sound
):
    folder, out = tmp_path / "talks", tmp_path / "out"
    folder.mkdir()
    audio.save(folder / "b.wav", sound(0.5))
    audio.save(folder / "a.flac", sound(0.5))
    (folder / "notes.txt").write_text("no sound")
    data = io.TextIOWrapper(io.BytesIO((folder / "b.wav").read_bytes()))
    monkeypatch.setattr("sys.stdin", data)
    words = (folder, "-", "--model", model, "--out", out, "--format", "json")
    assert vtb(monkeypatch, "transcribe", *words) == 0
    written = {path.name: json.loads(path.read_text()) for path in out.iterdir()}
    assert written.keys() == {"a.flac.json", "b.wav.json", "-.json"}
    assert written["-.json"]["duration_s"] == 0.5


@pytest.fixture
def microphone(monkeypatch, sound):
    """A microphone that hears a second of sound; Enter is pressed when all of it was heard."""
    done = threading.Event()

    class FakeStream:
        def __init__(self, callback, samplerate, channels, dtype):
            assert (samplerate, channels, dtype) == (16_000, 1, "float32")
            self.callback = callback

        def __enter__(self):
            for block in np.split(sound(1.0), 10):
                self.callback(block[:, None], len(block), None, None)
            done.set()

        def __exit__(self, *_):
            pass

    fake = types.SimpleNamespace(InputStream=FakeStream, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(readline=done.wait, isatty=bool))


def test_the_microphone_is_written_down(monkeypatch, capsys, model, microphone):
    monkeypatch.setattr("voicetextblender.speech.build_detector", lambda: lambda frame: 1.0)
    assert vtb(monkeypatch, "transcribe", "--record", "--model", model) == 0
    assert "press Enter" in capsys.readouterr().err


def test_a_spoken_message_is_answered(monkeypatch, capsys, model, microphone):
    lines = iter(["/record", "", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert vtb(monkeypatch, "chat", "--model", model, "--max-new-tokens", 3) == 0
    out, err = capsys.readouterr()
    assert "1.0 s added" in err and out.count("\n") == 1


def test_without_sounddevice_the_extra_is_named(monkeypatch, capsys, model):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(readline=str))
    assert vtb(monkeypatch, "transcribe", "--record", "--model", model) == 1
    assert "pip install 'voicetextblender[mic]'" in capsys.readouterr().err


def test_chat_reads_lines_and_answers(monkeypatch, capsys, model, tmp_path, sound):
    clip = tmp_path / "a.wav"
    audio.save(clip, sound(0.5))
    lines = iter([f"/audio {clip}", "", "hello", "/oops", "/audio no.wav", "/new", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert vtb(monkeypatch, "chat", "--model", model, "--max-new-tokens", 3) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2
    assert "0.5 s added" in err and "'/oops' is no command" in err and "no.wav" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
        (["transcribe", "a.wav", "--model", "nowhere"], "nowhere: no model here"),
        (["chat", "--model", "nowhere"], "nowhere: no model here"),
        (["transcribe"], "no recording given; name files or folders, or use --record"),
        (["transcribe", "recipes"], "recipes: no recordings in this folder"),
        (["transcribe", "a.wav", "--language", "xx"], "language 'xx' has no name here"),
        (["translate", "a.wav", "--to", "xx"], "language 'xx' has no name here"),
        (["serve", "prot=80"], "unknown key 'prot'; did you mean 'port'?"),
        (["data", "import", "kaldy", "out"], "'kaldy' is no kind of source"),
        (["bench", "trian"], "'trian' is no benchmark; choose one of align,"),
    ],
)
def test_bad_input_ends_in_one_sentence(monkeypatch, capsys, words, message):
    assert vtb(monkeypatch, *words) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_training_from_the_command_line_makes_a_model(monkeypatch, capsys, tmp_path, parts, sound):
    audio.save(tmp_path / "a.wav", sound(0.5))
    turns = [
        {"role": "user", "content": [{"type": "audio", "audio": "a.wav", "text": "hello"}]},
        {"role": "assistant", "content": "hello"},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "messages": turns}) + "\n")
    adapter = {"width": 16, "heads": 2, "layers": 1, "kernel": 3}
    recipe = {
        "run": str(tmp_path / "run"),
        "model": {
            "llm": str(parts / "llama"),
            "encoder": str(parts / "whisper"),
            "adapter": adapter,
        },
        "blend": [{"name": "a", "path": "a.jsonl"}],
        "train": {"steps": 2, "warmup": 1, "tokens_per_batch": 200, "log_every": 1},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert vtb(monkeypatch, "train", tmp_path / "recipe.yaml", "train.seed=3") == 0
    assert (tmp_path / "run/model/config.json").is_file()
    assert "seed: 3" in (tmp_path / "run/model/recipe.yaml").read_text()
    assert "The model is in" in capsys.readouterr().err


def test_an_evaluation_says_what_came_out_and_is_scored_again_without_the_model(
    monkeypatch, capsys, model, tmp_path
):
    (tmp_path / "plain.txt").write_text("a passage of text\nand another one\n")
    suite, out = tmp_path / "suite.yaml", tmp_path / "out"
    suite.write_text(
        "name: mine\nsets: [{name: t, path: plain.txt, speech: none, scorer: perplexity}]\n"
    )
    assert vtb(monkeypatch, "eval", model, suite, "--only", "base,ours", "--out", out) == 0
    said = capsys.readouterr().out
    assert said.startswith("Its perplexity on plain text moved by")
    files = [out / name for name in ("results.json", "report.html")]
    first = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert vtb(monkeypatch, "eval", tmp_path / "gone", suite, "--score-only", "--out", out) == 0
    assert [file.read_bytes() for file in files] == first
    assert capsys.readouterr().out == said


def test_serving_by_vllm_starts_its_command_with_the_servers_settings(monkeypatch, model, tmp_path):
    words = ["--engine", "vllm", "port=8123", "host=127.0.0.2"]
    assert vtb(monkeypatch, "serve", "--model", model, *words) == 1  # it was not exported
    assert vtb(monkeypatch, "export", model, "--to", "vllm", "--out", tmp_path / "out") == 0
    monkeypatch.setattr("shutil.which", lambda name: "/bin/vllm")
    started = []
    monkeypatch.setattr("os.execv", lambda path, words: started.extend(words) or sys.exit(0))
    assert vtb(monkeypatch, "serve", "--model", tmp_path / "out", *words) == 0
    assert started[:3] == ["/bin/vllm", "serve", str(tmp_path / "out")]
    assert started[3:7] == ["--host", "127.0.0.2", "--port", "8123"]
