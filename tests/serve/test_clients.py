"""Real clients against a real server."""

import base64
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from voicetextblender import audio, speech
from voicetextblender.serve.config import ServerConfig
from voicetextblender.serve.server import build_app

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def serve(start, monkeypatch):
    """Start a server on a real port: `serve(engine={…}, api_keys=…)` returns its address."""
    monkeypatch.setattr(
        speech, "build_detector", lambda: lambda frame: float(np.abs(frame).max() > 0.1)
    )
    servers = []

    def run(engine=None, **settings):
        port = free_port()
        app = build_app(start(**(engine or {})), ServerConfig(**settings))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{port}", app.state.engine

    yield run
    for server, thread in servers:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def recording(tmp_path, sound):
    path = tmp_path / "a.wav"
    audio.save(path, np.concatenate([sound(0.5), np.zeros(16_000, np.float32), sound(1.0, 1)]))
    return path


def idle(engine, patience_s=20):
    end = time.monotonic() + patience_s
    while engine.num_running or engine.num_waiting:
        assert time.monotonic() < end, "requests are stuck"
        time.sleep(0.01)


def test_the_openai_client_chats_with_audio_streams_and_parses(serve, recording):
    from openai import BadRequestError, OpenAI

    url, _ = serve()
    client = OpenAI(base_url=f"{url}/v1", api_key="any")
    data = base64.b64encode(recording.read_bytes()).decode()
    clip = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, clip]}]
    settings = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**settings, logprobs=True, top_logprobs=2)
    choice = whole.choices[0]
    assert whole.usage.completion_tokens == len(choice.logprobs.content) <= 12
    stream = client.chat.completions.create(
        **settings, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == choice.message.content and chunks[-1].usage == whole.usage
    assert client.models.list().data[0].id == "tiny"
    with pytest.raises(BadRequestError, match="temperature: Input should be"):
        client.chat.completions.create(**settings | {"temperature": 5})


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # translation, in the client
def test_the_openai_client_transcribes_in_every_format(serve, recording):
    from openai import OpenAI

    url, _ = serve()
    client = OpenAI(base_url=f"{url}/v1", api_key="any")

    def ask(**settings):
        with recording.open("rb") as file:
            return client.audio.transcriptions.create(
                file=file, model="tiny", language="en", **settings
            )

    plain = ask()
    verbose = ask(response_format="verbose_json")
    assert verbose.text == plain.text and verbose.duration == 2.5
    assert " ".join(segment.text for segment in verbose.segments) == plain.text
    assert all(0 <= s.start < s.end <= 2.6 and s.avg_logprob < 0 for s in verbose.segments)
    assert ask(response_format="text").strip() == plain.text
    assert ask(response_format="srt").startswith("1\n00:00:00,000 --> ")
    assert ask(response_format="vtt").startswith("WEBVTT")
    *deltas, done = list(ask(stream=True))
    assert "".join(event.delta for event in deltas) == done.text == plain.text
    with recording.open("rb") as file:
        assert client.audio.translations.create(file=file, model="tiny").text is not None


def test_the_openai_client_hears_of_keys_and_of_a_full_server(serve):
    from openai import AuthenticationError, InternalServerError, OpenAI

    url, engine = serve(api_keys=("correct-horse",), engine={"max_waiting": 1, "max_running": 1})
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=f"{url}/v1", api_key="wrong").chat.completions.create(**ask)
    client = OpenAI(base_url=f"{url}/v1", api_key="correct-horse", max_retries=0)
    admit, engine._admit = engine._admit, lambda: []
    begun = threading.Thread(target=client.chat.completions.create, kwargs=ask)
    begun.start()
    while not engine.num_waiting:
        time.sleep(0.01)
    with pytest.raises(InternalServerError) as busy:
        client.chat.completions.create(**ask)
    assert busy.value.status_code == 503 and int(busy.value.response.headers["retry-after"]) >= 1
    engine._admit = admit
    assert client.with_options(max_retries=4).chat.completions.create(**ask).choices
    begun.join()


def test_the_examples_of_the_documentation_run(serve):
    url, _ = serve()
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/serving.md").read_text(), re.DOTALL)
    curls = [block for block in blocks if "curl" in block]
    assert len(curls) == 2
    for block in curls:
        script = "set -e\n" + block.replace("http://127.0.0.1:8000", url)
        run = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout


def test_the_openapi_description_is_kept(serve, tmp_path):
    """Schemathesis sends what the description allows and what it forbids."""
    url, engine = serve(engine={"deadline_s": 20, "context": 512})
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    run = subprocess.run(
        [*command, "--checks", checks, "--max-examples", "60", "--seed", "1", "--no-color"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout[-6000:]
    idle(engine)


def mutated(chance, data):
    """Break some bytes, cut or double others."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 200)]
            case 2:
                data[at:at] = data[max(0, at - chance.randrange(1, 100)) : at]
            case 3:
                data[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        if not data:
            return b"x"
    return bytes(data)


def test_ten_thousand_broken_requests_are_refused_and_break_nothing(serve, tmp_path, sound):
    url, engine = serve(engine={"context": 512}, max_clip_s=3, max_recording_s=5)
    files = {}
    for suffix in ("wav", "flac", "opus"):
        audio.save(tmp_path / f"a.{suffix}", sound(0.5))
        files[suffix] = (tmp_path / f"a.{suffix}").read_bytes()
    for suffix, codec in (("mp3", "libmp3lame"), ("m4a", "aac"), ("webm", "libopus")):
        files[suffix] = encode(sound(0.5), codec, suffix)
    clip = {"data": base64.b64encode(files["wav"]).decode(), "format": "wav"}
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": clip}]
    body = json.dumps(
        {"messages": [{"role": "user", "content": parts}], "max_tokens": 2, "temperature": 1.0}
    ).encode()
    chance = random.Random(0)
    statuses = dict.fromkeys(range(100, 600), 0)
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        for n in range(10_000):
            if n % 2:
                path, kind, sent = "/v1/chat/completions", "application/json", mutated(chance, body)
            else:
                suffix = chance.choice(list(files))
                path, kind = "/v1/audio/transcriptions", "multipart/form-data; boundary=x"
                head = (
                    f'--x\r\nContent-Disposition: form-data; name="file"; filename="a.{suffix}"\r\n'
                )
                sent = head.encode() + b"\r\n" + mutated(chance, files[suffix]) + b"\r\n--x--\r\n"
            connection.request("POST", path, sent, {"Content-Type": kind})
            response = connection.getresponse()
            text = response.read()
            statuses[response.status] += 1
            assert response.status < 500 or response.status == 503, (path, sent[:3000], text)
            assert b"Traceback" not in text and b"site-packages" not in text
    assert statuses[200] > 500 and statuses[400] > 3000
    idle(engine)


def encode(samples, codec, container):
    """Return samples in a format that soundfile does not write."""
    import io

    import av

    data = io.BytesIO()
    name = {"m4a": "mp4"}.get(container, container)
    with av.open(data, "w", format=name) as out:
        rate = 48_000 if codec == "libopus" else 16_000
        stream = out.add_stream(codec, rate=rate)
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(stream.format, "mono", rate)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return data.getvalue()


def test_two_thousand_clients_who_come_and_go_leave_nothing_behind(serve):
    url, engine = serve(engine={"max_waiting": 64, "max_running": 8, "prefix_tokens": 2000})
    address = url.removeprefix("http://")
    statuses = []

    def client(seed):
        chance = random.Random(seed)
        for _ in range(125):
            connection = http.client.HTTPConnection(address, timeout=60)
            stream = chance.random() < 0.6
            ask = {
                "messages": [{"role": "user", "content": "x" * chance.randrange(1, 60)}],
                "max_tokens": chance.randrange(1, 30),
                "stream": stream,
            }
            connection.request("POST", "/v1/chat/completions", json.dumps(ask), JSON)
            if chance.random() < 0.3:
                connection.close()  # before the answer
                continue
            response = connection.getresponse()
            statuses.append(response.status)
            if stream and chance.random() < 0.5:
                response.read(chance.randrange(1, 300))  # in the middle of it
            else:
                response.read()
            connection.close()

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(16)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    idle(engine)
    assert set(statuses) <= {200, 503} and statuses.count(200) > 500
    stats = engine.stats
    assert stats.failed == 0 and stats.cancelled > 50
    assert not engine._generations[True].decoder.cache.stores


def test_told_to_stop_the_command_finishes_what_runs(tmp_path, build, processor):
    folder = tmp_path / "model"
    build().save_pretrained(folder)
    processor.save_pretrained(folder)
    port = free_port()
    words = ["serve", "--model", folder, "--name", "mine", f"port={port}"]
    command = [sys.executable, "-m", "voicetextblender.cli", *map(str, words)]
    env = os.environ | {"VTB_API_KEYS": "correct-horse", "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_healthy(port)
        long = {"type": "string", "minLength": 300}  # whatever the model would say
        ask = {
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 400,
            "response_format": {"type": "json_schema", "json_schema": {"schema": long}},
            "stream": True,
        }
        headers = JSON | {"Authorization": "Bearer correct-horse"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(ask), headers)
            response = connection.getresponse()
            assert response.status == 200
            response.read(400)
            server.send_signal(signal.SIGTERM)
            assert response.read().endswith(b"data: [DONE]\n\n")
        assert server.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.communicate()


def wait_until_healthy(port, patience_s=120):
    end = time.monotonic() + patience_s
    while True:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
                return
        except OSError:
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.1)
