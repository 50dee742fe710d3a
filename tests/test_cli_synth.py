"""Recipes of `vtb synth run`: verbs and their options, written down."""

import sys

import pytest

from voicetextblender.cli import main
from voicetextblender.cli.synth import read_steps

RECIPE = """
plain: &plain
  asr: {text}
  voice: [hibari, hibari]
  longest_run: 1
  source: Aesop
  augment: false
warped:
  <<: *plain
  warp: 0.2
  augment: true
  clips: 2
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text("We saw cats.\nWe saw dogs.\nWe saw hens.\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("{text}", str(tmp_path / "text.txt")))
    return path


def vtb(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["vtb", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_a_step_is_the_command_line_that_it_stands_for(recipe, tmp_path):
    text = str(tmp_path / "text.txt")
    (plain, words), (warped, more) = read_steps(recipe)
    assert (plain, warped) == ("plain", "warped")
    voices = ["--voice", "hibari", "--voice", "hibari"]
    assert words == ["asr", text, *voices, "--longest-run", "1", "--source", "Aesop"]
    assert more[more.index("--warp") :][:2] == ["--warp", "0.2"] and "--augment" in more


def test_every_step_of_a_recipe_fills_its_folder(monkeypatch, capsys, recipe, tmp_path):
    pytest.importorskip("hibari")
    out = tmp_path / "out"
    how = ("synth", "run", recipe, "--out", out, "--workers", 1)
    assert vtb(monkeypatch, *how, "--dry-run") == 0
    assert "3 items" in capsys.readouterr().out and not out.exists()
    assert vtb(monkeypatch, *how) == 0
    plain = (out / "plain/shard-00000.jsonl").read_text().splitlines()
    warped = (out / "warped/shard-00000.jsonl").read_text().splitlines()
    assert len(plain) == 3 and len(warped) == 2
    assert all('"source": "Aesop"' in line for line in plain + warped)
    assert '"warp"' not in plain[0] and '"warp"' in warped[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {voice: hibari}", "'a' must have one verb with what it is made from, such as 'asr"),
        ("- asr", "must name folders, each with a verb and its options"),
        ("a: {", "not YAML: while parsing"),
        ("a: {asr: nowhere.txt}", "nowhere.txt"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(monkeypatch, capsys, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    assert vtb(monkeypatch, "synth", "run", tmp_path / "bad.yaml", "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("options", ["wrap: 0.2", "clips: few"])
def test_an_option_that_the_verb_has_not_is_refused_as_on_the_command_line(
    monkeypatch, capsys, tmp_path, options
):
    (tmp_path / "bad.yaml").write_text(f"a: {{asr: x.txt, {options}}}")
    how = ("synth", "run", tmp_path / "bad.yaml", "--out", tmp_path / "out")
    assert vtb(monkeypatch, *how) == 2
    error = capsys.readouterr().err
    assert f"--{options.partition(':')[0]}" in error and "vtb synth asr x.txt" in error
