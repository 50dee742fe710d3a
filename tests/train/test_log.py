import sys

import pytest

from voicetextblender.train.log import one_line, open_log, read_log

LINE = {
    "step": 3,
    "loss": 1.5,
    "loss_by_source": {"asr": 1.0, "text": 2.0},
    "ctc": 0.25,
    "tokens_per_s": 400.0,
    "audio_s_per_s": 12.0,
    "memory_gb": 1.25,
}


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]
    assert read_log(tmp_path / "none") == []


def test_lines_of_steps_that_are_done_again_go(recipe, tmp_path):
    for begun_at in (0, 2):
        with open_log(tmp_path / "run", recipe(), begun_at) as log:
            for step in range(begun_at + 1, 5):
                log.write(LINE | {"step": step})
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4]


def test_every_number_goes_to_tensorboard_by_name(recipe, tmp_path):
    with open_log(tmp_path / "run", recipe(), 0) as log:
        log.write(LINE)
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    written = events.read_bytes()
    for name in (b"loss_by_source/asr", b"loss_by_source/text", b"tokens_per_s", b"ctc"):
        assert name in written


def test_one_line_says_how_it_goes():
    assert one_line(LINE) == (
        "step 3 · loss asr 1.00 text 2.00 · ctc 0.25 · 400 tokens/s · hears 12x · 1.2 GB"
    )
    assert "loss" not in one_line(LINE | {"loss_by_source": {}, "ctc": 0.0})
    assert one_line(LINE | {"warning": "less"}).endswith("less")


def test_wandb_that_is_not_installed_is_asked_for_by_its_extra(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ValueError, match=r"train.wandb is 'mine'.*pip install 'voicet.*\[wandb\]"),
        open_log(tmp_path / "run", recipe(wandb="mine"), 0),
    ):
        pass


def test_wandb_gets_the_same_numbers(recipe, tmp_path, monkeypatch):
    got = {}

    class FakeWandb:
        @staticmethod
        def init(**settings):
            got.update(settings)
            return FakeWandb()

        def log(self, scalars, step):
            got[step] = scalars

        def finish(self):
            got["finished"] = True

    monkeypatch.setitem(sys.modules, "wandb", FakeWandb)
    with open_log(tmp_path / "run", recipe(wandb="mine"), 0) as log:
        log.write(LINE)
    assert got["project"] == "mine" and got["resume"] == "allow" and got["finished"]
    assert got[3]["loss_by_source/asr"] == 1.0 and "step" not in got[3]
