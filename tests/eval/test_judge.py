import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.eval.judge import DIGEST, Case, LocalJudge, verdicts
from voicetextblender.eval.metrics import estimate
from voicetextblender.eval.predict import Prediction
from voicetextblender.eval.scorers import Answers, scorer
from voicetextblender.synth.writers import load_writer

CASES = [Case("1 + 1?", "2", "2"), Case("The capital of France?", "Paris", "Rome, I think")]


@pytest.fixture
def service(monkeypatch):
    """A judge on this machine: `says` maps a prompt to what it writes, or to a status code."""

    class Service(BaseHTTPRequestHandler):
        prompts: list[str] = []

        @staticmethod
        def says(prompt):
            correct = int("Right answer: 2" in prompt)
            return json.dumps({"correct": correct, "redundancy": 9 - 8 * correct})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Service.prompts.append(body["messages"][-1]["content"])
            assert body["temperature"] == 0
            said = Service.says(Service.prompts[-1])
            self.send_response(said if isinstance(said, int) else 200)
            self.end_headers()
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("voicetextblender.synth.remote._FIRST_WAIT_S", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    Service.url = f"http://127.0.0.1:{server.server_port}/v1#judge"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Service
    server.shutdown()
    server.server_close()
    load_writer.cache_clear()


def test_a_service_judges_and_is_never_asked_the_same_twice(service, tmp_path):
    first = verdicts(service.url, CASES, tmp_path)
    assert [(v.correct, v.redundancy) for v in first] == [(1, 1), (0, 9)]
    assert verdicts(service.url, CASES[::-1], tmp_path) == first[::-1]
    assert len(service.prompts) == 2
    assert "Given answer: Rome, I think" in service.prompts[0] + service.prompts[1]


def test_an_answer_that_cannot_be_judged_is_counted_and_not_scored(service, tmp_path):
    says = service.says
    service.says = lambda prompt: "I would rather not." if "Rome" in prompt else says(prompt)
    items = [Conversation(c.question, (user(c.question), assistant(c.reference))) for c in CASES]
    found = [Prediction(i.id, answer=c.answer) for i, c in zip(items, CASES, strict=True)]
    metrics = scorer("judge")(Answers(items, found, judge=service.url, cache=tmp_path))
    values = {m.name: estimate(m).value for m in metrics}
    assert values == {"correct": 1.0, "redundancy": 1.0, "unjudged": 0.5}
    assert metrics[0].scored_with == f"judge {service.url}, prompt {DIGEST}"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("nonsense", "said nothing that can be read of 2 answers; it must write JSON"),
        ('{"correct": 7, "redundancy": 0}', "said nothing that can be read of 2 answers"),
        (503, "answered 503"),
    ],
)
def test_a_judge_that_is_down_or_talks_nonsense_is_an_error(service, said, message):
    service.says = lambda prompt: said
    with pytest.raises(ValueError, match=message):
        verdicts(service.url, CASES, None)


def test_without_a_judge_nothing_is_judged():
    with pytest.raises(ValueError, match="the scorer 'judge' needs a judge; name one in the suite"):
        scorer("judge")(Answers([], []))


def test_a_local_judge_always_has_a_verdict_and_always_the_same(parts):
    judge = LocalJudge(str(parts / "llama"))
    found = judge.judge(CASES)
    assert all(v.correct in (0, 1) and 1 <= v.redundancy <= 9 for v in found)
    assert judge.judge(CASES[1:]) == found[1:]
