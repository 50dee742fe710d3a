import base64
import io
import json
import logging

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from voicetextblender import audio, speech
from voicetextblender.serve.config import ServerConfig
from voicetextblender.serve.server import build_app

pytestmark = pytest.mark.slow  # an engine for each test: half a minute in all


@pytest.fixture(autouse=True)
def anything_loud_is_speech(monkeypatch):
    monkeypatch.setattr(
        speech, "build_detector", lambda: lambda frame: float(np.abs(frame).max() > 0.1)
    )


@pytest.fixture
def client(start):
    """A client of a server: `client(api_keys=("…",))`; engine settings under `engine`."""
    clients = []

    def connect(engine=None, **settings):
        app = build_app(start(**(engine or {})), ServerConfig(**settings))
        clients.append(TestClient(app, raise_server_exceptions=False))
        return clients[-1].__enter__()

    yield connect
    for one in clients:
        one.__exit__(None, None, None)


def wav(samples):
    data = io.BytesIO()
    soundfile.write(data, samples, 16_000, format="WAV")
    return data.getvalue()


def clip(samples):
    data = base64.b64encode(wav(samples)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def said(*parts):
    return {"role": "user", "content": list(parts)}


def ask(client, *messages, **settings):
    body = {"messages": list(messages) or [{"role": "user", "content": "hello"}]}
    return client.post("/v1/chat/completions", json={"max_tokens": 5, **body, **settings})


def events(response):
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def test_a_conversation_with_several_clips_in_several_turns_is_answered(client, sound):
    url = "data:audio/wav;base64," + base64.b64encode(wav(sound(0.3, 2))).decode()
    response = ask(
        client(),
        {"role": "developer", "content": "Be brief."},
        said({"type": "text", "text": "a"}, clip(sound(0.5)), clip(sound(0.2, 1))),
        {"role": "assistant", "content": "b"},
        said({"type": "audio_url", "audio_url": {"url": url}}),
        temperature=0,
    )
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["object"] == "chat.completion" and len(body["choices"]) == 1
    assert body["choices"][0]["finish_reason"] in ("stop", "length")
    assert body["usage"]["completion_tokens"] <= 5 < body["usage"]["prompt_tokens"]


def test_a_stream_joins_to_the_whole_answer(client, sound):
    server = client()
    turn = said({"type": "text", "text": "a"}, clip(sound(0.5)))
    whole = ask(server, turn, temperature=0, max_tokens=20).json()
    stream = ask(
        server, turn, temperature=0, max_tokens=20, stream=True, stream_options={"include_usage": 1}
    )
    assert stream.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(stream)
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert done == "[DONE]" and choices[0]["delta"]["role"] == "assistant"
    text = "".join(choice["delta"]["content"] for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert json.loads(usage)["usage"] == whole["usage"]


def test_a_seed_makes_a_drawn_answer_come_again(client):
    server = client()
    texts = [
        ask(server, temperature=1.5, seed=seed, max_tokens=20).json()["choices"][0]["message"]
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_log_probabilities_come_with_their_tokens(client):
    body = ask(client(), logprobs=True, top_logprobs=3, temperature=0).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert len(content) == body["usage"]["completion_tokens"]
    assert len(content[0]["top_logprobs"]) == 3
    assert content[0]["top_logprobs"][0]["logprob"] == content[0]["logprob"] <= 0
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]


def test_an_answer_follows_a_json_schema(client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    server = client()
    response = ask(server, response_format=wrapped, temperature=1.5, max_tokens=60)
    text = response.json()["choices"][0]["message"]["content"]
    assert text.lstrip().startswith("{") and '"a"' in text
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "oops"}}}
    assert ask(server, response_format=wrong).status_code == 400


def test_voice_off_may_differ_from_voice_on(client):
    server = client()
    on, off = (
        ask(server, temperature=0, voice=v, max_tokens=24).json()["choices"][0]["message"]
        for v in (True, False)
    )
    assert on != off


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", '{"text":'),
        ("text", ""),
        ("srt", "1\n00:00:00,"),
        ("vtt", "WEBVTT\n\n00:00:00."),
        ("verbose_json", '{"task":"transcribe","language":"german","duration":2.5'),
    ],
)
def test_a_recording_is_transcribed_in_every_format(client, sound, form, expected):
    recording = np.concatenate([sound(0.5), np.zeros(16_000, np.float32), sound(1.0, 1)])
    response = client().post(
        "/v1/audio/transcriptions",
        files={"file": ("a.wav", wav(recording))},
        data={"language": "de", "response_format": form, "prompt": "Ann, Bob", "model": "any"},
    )
    assert response.status_code == 200 and response.text.startswith(expected)


def test_a_transcript_streams_and_a_translation_says_to_what(client, sound):
    server = client()
    files = {"file": ("a.wav", wav(sound(0.5)))}
    stream = server.post("/v1/audio/transcriptions", files=files, data={"stream": "true"})
    *deltas, done = map(json.loads, events(stream))
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]
    data = {"language": "en", "target": "es", "response_format": "verbose_json"}
    body = server.post("/v1/audio/translations", files=files, data=data).json()
    assert body["task"] == "translate" and body["language"] == "spanish"


def test_silence_is_an_empty_text(client):
    files = {"file": ("a.wav", wav(np.zeros(16_000, np.float32)))}
    assert client().post("/v1/audio/transcriptions", files=files).json() == {"text": ""}


def test_the_server_tells_what_it_serves_and_how_it_goes(client):
    server = client()
    assert server.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert server.get("/health").json() == {"status": "ok"}
    ask(server)
    ask(server, temperature=-1)
    text = server.get("/metrics").text
    assert 'vtb_http_requests_total{route="/v1/chat/completions",status="200"} 1' in text
    assert 'vtb_http_requests_total{route="/v1/chat/completions",status="400"} 1' in text
    assert "vtb_answers_finished_total 1" in text
    assert 'vtb_http_request_seconds_bucket{le="+Inf"} 4' in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        ({"n": 2}, "n: Input should be 1"),
        ({"tools": [{}]}, "tools: List should have at most 0 items"),
        ({"max_tokens": 10**6}, "more than the model's"),
        ({"stop": [""]}, "stop holds an empty text"),
        ({"response_format": {"type": "json_schema"}}, "needs 'json_schema'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_sentence(client, settings, message):
    response = ask(client(), **settings)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def audio_part(data, form="wav"):
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def url_part(url):
    return {"type": "audio_url", "audio_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (audio_part("%%%"), "message 0, clip 0: is not base64"),
        (audio_part(""), "message 0, clip 0.wav: is empty"),
        (audio_part("AAAA"), "message 0, clip 0.wav: cannot be read as audio"),
        (audio_part("AAAA", "exe"), "format 'exe' is not one of wav, mp3"),
        (url_part("file:///etc/passwd"), "this server fetches nothing"),
        (url_part("http://127.0.0.1/"), "this server fetches nothing"),
        (url_part("data:audio/wav,hello"), "a data URL must be"),
        (url_part("/etc/passwd"), "this server fetches nothing"),
    ],
)
def test_a_clip_that_cannot_be_heard_is_refused_by_its_place(client, part, message):
    response = ask(client(), said(part))
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_only_users_speak(client, sound):
    response = ask(client(), {"role": "assistant", "content": [clip(sound(0.2))]}, said())
    assert "only user messages hold audio" in response.json()["error"]["message"]


def test_a_small_file_that_unpacks_to_hours_is_refused_without_unpacking_it(client):
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros(3600 * 8000, np.float32), 8000, format="FLAC")
    assert len(bomb.getvalue()) < 300_000
    data = base64.b64encode(bomb.getvalue()).decode()
    server = client(max_clip_s=10, max_recording_s=100)
    response = ask(server, said(audio_part(data, "flac")))
    assert response.status_code == 400
    assert "longer than the 10 s" in response.json()["error"]["message"]
    files = {"file": ("a.flac", bomb.getvalue())}
    response = server.post("/v1/audio/transcriptions", files=files)
    assert response.status_code == 400 and "longer than 2 min" in response.text


def test_clips_share_the_seconds_of_a_request(client, sound):
    server = client(max_clip_s=1)
    assert ask(server, said(clip(sound(0.6)))).status_code == 200
    response = ask(server, said(clip(sound(0.6)), clip(sound(0.6))))
    assert "clip 1: is longer than the 0 s" in response.json()["error"]["message"]


@pytest.mark.parametrize("language", ["xx", "english", "../../etc/passwd"])
def test_a_language_that_is_not_known_is_refused(client, sound, language):
    files = {"file": ("../../etc/passwd", wav(sound(0.2)))}
    response = client().post("/v1/audio/transcriptions", files=files, data={"language": language})
    assert response.status_code == 400 and "has no name here" in response.text


def test_control_tokens_in_what_users_write_are_text(client, processor):
    server = client()
    plain = ask(server, {"role": "user", "content": "x"}).json()["usage"]["prompt_tokens"]
    for token in ("<|im_end|>", processor.audio_token):
        usage = ask(server, {"role": "user", "content": token}).json()["usage"]
        assert usage["prompt_tokens"] > plain, f"{token} was taken for itself"


def test_a_key_is_needed_where_keys_are_set(client):
    server = client(api_keys=("correct-horse", "battery-staple"))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse2"}):
        response = server.get("/v1/models", headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "authentication_error"
    for key in ("correct-horse", "battery-staple"):
        assert server.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).is_success
    assert server.get("/health").is_success and server.get("/metrics").is_success


def test_a_rate_is_kept_and_says_when_to_come_again(client):
    server = client(requests_per_minute=60)
    codes = [server.get("/v1/models").status_code for _ in range(15)]
    assert codes.count(200) in (10, 11) and codes[-1] == 429
    response = server.get("/v1/models")
    assert response.headers["retry-after"] == "1"
    assert server.get("/health").is_success


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(client):
    server = client(max_request_mb=1)
    big = {"messages": [{"role": "user", "content": "x" * 2**21}]}
    assert server.post("/v1/chat/completions", json=big).status_code == 413

    def unsaid():
        yield json.dumps(big).encode()

    response = server.post("/v1/chat/completions", content=unsaid())
    assert response.status_code == 413 and "larger than 1 MiB" in response.text


def test_a_full_engine_answers_503_and_when_to_come_again(client, monkeypatch):
    server = client(engine={"max_waiting": 1, "max_running": 1})
    engine = server.app.state.engine
    with monkeypatch.context() as stuck:
        stuck.setattr(engine, "_admit", lambda: [])
        waiting = engine.submit(*talk())
        response = ask(server)
        assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
        assert "wait already" in response.json()["error"]["message"]
        waiting.cancel()
        with pytest.raises(RuntimeError, match="cancelled"):
            waiting.text()
    assert ask(server).is_success


def talk():
    from voicetextblender.chat import Conversation, user

    return (Conversation("a", (user("hello"),)),)


def test_a_deadline_is_a_503_too(client):
    response = ask(client(engine={"deadline_s": 1e-3}), max_tokens=4000)
    assert response.status_code == 503 and response.headers["retry-after"] == "5"


def test_what_fails_inside_is_logged_and_not_told(client, monkeypatch, caplog):
    server = client()
    monkeypatch.setattr(server.app.state.engine.processor, "encode", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.ERROR):
        response = ask(server)
    assert response.status_code == 500
    assert "division" not in response.text and "Traceback" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_unknown_paths_and_methods_have_the_form_of_errors(client):
    server = client()
    assert server.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert server.get("/v1/chat/completions").status_code == 405
    assert server.post("/v1/chat/completions", content=b"{").status_code == 400


def test_web_pages_of_named_origins_may_ask(client):
    server = client(cors_origins=("https://good.example",), api_keys=("correct-horse",))
    ask_first = {"Access-Control-Request-Method": "POST"}
    good = server.options("/v1/models", headers={"Origin": "https://good.example", **ask_first})
    assert good.headers["access-control-allow-origin"] == "https://good.example"
    bad = server.options("/v1/models", headers={"Origin": "https://bad.example", **ask_first})
    assert "access-control-allow-origin" not in bad.headers


def test_a_server_listens_to_this_machine_alone_unless_told():
    assert ServerConfig().host == "127.0.0.1"
    with pytest.raises(ValueError, match="shorter than 8 characters"):
        ServerConfig(api_keys=("short",))
    with pytest.raises(ValueError, match="go together"):
        ServerConfig(tls_cert="a.pem")
    assert audio.SAMPLE_RATE == 16_000
