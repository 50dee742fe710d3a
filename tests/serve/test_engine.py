import random
import threading
import time

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.serve.engine import BusyError, Engine

CLIP = Audio("a.wav")
LONG = Decoding(max_new_tokens=200)


def talk(*parts):
    return Conversation("talk", (user(*parts),))


def until(condition, patience_s=10.0):
    """Wait for another thread."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


@pytest.mark.parametrize("llm", ["llama", "gemma"])
def test_many_at_once_get_the_answers_that_each_would_get_alone(
    llm, start, build, processor, sound
):
    engine = start(llm, max_running=4)
    asked = [(talk("Say:", CLIP, "x" * n), [sound(0.2 + n / 10, n)]) for n in range(9)]
    requests = [engine.submit(t, clips, Decoding(5 + n)) for n, (t, clips) in enumerate(asked)]
    texts = [request.text() for request in requests]
    for n, (conversation, clips) in enumerate(asked):
        sample = processor.encode(conversation, clips, purpose="answer")
        assert [texts[n]] == answers(build(llm), processor, [sample], Decoding(5 + n))
    assert engine.stats.finished == 9
    assert engine.stats.steps < sum(5 + n for n in range(9)), "they did not grow together"


def test_a_new_request_joins_while_others_grow(start):
    engine = start()
    slow = engine.submit(talk("hello"), (), LONG)
    next(iter(slow))
    quick = engine.submit(talk("quick"), (), Decoding(max_new_tokens=2))
    quick.text()
    assert slow.num_tokens < 200


def test_who_goes_away_frees_the_place(start):
    engine = start(max_running=1)
    gone = engine.submit(talk("hello"), (), Decoding(max_new_tokens=4000))
    chunks = iter(gone)
    next(chunks)
    waiting = engine.submit(talk("next"), (), Decoding(max_new_tokens=2))
    chunks.close()
    waiting.text()
    assert gone.num_tokens < 4000 and engine.stats.cancelled == 1
    until(lambda: engine.num_running == 0)


def test_a_request_can_be_given_up_while_it_waits(start):
    engine = start(max_running=1)
    first = engine.submit(talk("hello"), (), Decoding(max_new_tokens=4000))
    second = engine.submit(talk("next"))
    second.cancel()
    with pytest.raises(RuntimeError, match="was cancelled"):
        second.text()
    first.cancel()


def test_more_than_may_wait_are_refused_and_then_taken_again(start):
    engine = start(max_running=1, max_waiting=2)
    first = engine.submit(talk("hello"), (), Decoding(max_new_tokens=4000))
    until(lambda: engine.num_running == 1)
    waiting = [engine.submit(talk("next"), (), Decoding(max_new_tokens=2)) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests wait already") as refused:
        engine.submit(talk("one more"))
    assert refused.value.retry_after_s >= 1 and engine.stats.refused == 1
    first.cancel()
    for request in waiting:
        request.text()
    engine.submit(talk("again"), (), Decoding(max_new_tokens=2)).text()


def test_a_deadline_ends_a_request_that_grows_and_one_that_waits(start):
    engine = start(max_running=1)
    grows = engine.submit(talk("hello"), (), Decoding(max_new_tokens=4000), deadline_s=0.3)
    waits = engine.submit(talk("hello"), (), LONG, deadline_s=0.01)
    for request in (waits, grows):
        with pytest.raises(TimeoutError, match="no answer within 0 s"):
            request.text()
    assert engine.stats.late == 2


def test_a_conversation_that_is_too_long_is_refused_before_it_waits(start):
    engine = start(context=64)
    with pytest.raises(ValueError, match=r"has \d+ tokens .* more than the model's 64 together"):
        engine.submit(talk("hello"), (), Decoding(max_new_tokens=60))


def test_turns_of_a_conversation_are_read_once(start, sound):
    engine = start()
    turns, clips = (user("Say:", CLIP),), [sound(1.0)]
    text = engine.submit(Conversation("c", turns), clips, Decoding(8)).text()
    read = engine.stats.prompt_tokens
    turns = (*turns, assistant(text), user("again"))
    engine.submit(Conversation("c", turns), clips, Decoding(8)).text()
    assert engine.stats.reused_tokens >= read


def test_voice_off_answers_beside_voice_on(start, build, processor):
    engine = start()
    both = [engine.submit(talk("hello there"), (), Decoding(24), voice=v) for v in (True, False)]
    on, off = (request.text() for request in both)
    sample = processor.encode(talk("hello there"), [], purpose="answer")
    model = build()
    assert [on] == answers(model, processor, [sample], Decoding(24))
    with model.voice_off():
        assert [off] == answers(model, processor, [sample], Decoding(24))


def test_a_drawn_answer_follows_from_its_seed_whatever_runs_beside_it(start):
    engine = start()
    warm = Decoding(12, 1.5, seed=3)
    alone = engine.submit(talk("hello"), (), warm).text()
    beside = [engine.submit(talk("other", str(n)), (), Decoding(12, 1.5)) for n in range(3)]
    assert engine.submit(talk("hello"), (), warm).text() == alone
    for request in beside:
        request.text()


def test_a_failure_is_told_to_all_who_wait_and_the_engine_goes_on(start, monkeypatch):
    engine = start()
    generation = engine._generations[True]
    with monkeypatch.context() as broken:
        broken.setattr(generation.decoder, "step", lambda _: 1 / 0)
        with pytest.raises(RuntimeError, match="the engine failed: division by zero"):
            engine.submit(talk("hello")).text()
    assert engine.submit(talk("hello"), (), Decoding(4)).text() is not None
    assert engine.stats.failed == 1 and engine.is_well


def test_closing_finishes_what_runs_and_takes_no_more(start):
    engine = start(max_running=1)
    requests = [engine.submit(talk(str(n)), (), Decoding(30)) for n in range(3)]
    engine.close()
    with pytest.raises(BusyError, match="the server is closing"):
        engine.submit(talk("late"))
    assert engine.stats.finished == 3 and not engine.is_well
    for request in requests:
        request.text()


def test_closing_without_patience_cancels(start):
    engine = start()
    request = engine.submit(talk("hello"), (), Decoding(max_new_tokens=4000))
    engine.close(patience_s=0.0)
    with pytest.raises(RuntimeError, match="cancelled"):
        request.text()


def test_random_comings_and_goings_leave_nothing_behind(start, sound):
    engine = start(max_running=8, max_waiting=1000, prefix_tokens=500)
    chance = random.Random(0)

    def client(number):
        for n in range(12):
            conversation = talk("hello" * chance.randrange(1, 5), *([CLIP] if n % 3 == 0 else []))
            clips = [sound(0.2, number)] if n % 3 == 0 else []
            request = engine.submit(conversation, clips, Decoding(chance.randrange(1, 20)))
            for count, chunk in enumerate(request):
                if chunk.finished or count == chance.randrange(20):
                    break

    clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    until(lambda: not engine.num_running and not engine.num_waiting)
    stats = engine.stats
    assert stats.finished + stats.cancelled == 96 and stats.failed == 0
    generation = engine._generations[True]
    assert not generation.answers and not generation.decoder.cache.stores


def test_the_engine_says_what_it_serves(start):
    info = start().info
    assert info.name == "tiny" and info.precision == "float32" and info.context == 4096
    assert info.seconds_per_embedding == 0.08
    assert Engine.__doc__
