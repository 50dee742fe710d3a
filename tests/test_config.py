import re

import pytest

from voicetextblender.config import (
    AdapterConfig,
    Recipe,
    TrainConfig,
    dump_recipe,
    load_recipe,
)
from voicetextblender.serve.config import ServerConfig
from voicetextblender.settings import Settings, validate

MINIMAL = "run: runs/a\nblend:\n- {name: asr, path: a.jsonl}\n"


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def all_settings(kind=Settings):
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in all_settings(sub))]


def test_a_recipe_needs_only_a_run_and_a_source(recipe_file):
    recipe = load_recipe(recipe_file(MINIMAL))
    assert recipe.train == TrainConfig()
    assert recipe.blend[0].weight == 1.0


def test_paths_of_the_blend_are_relative_to_the_recipe(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file(MINIMAL))
    assert recipe.blend[0].path == str(tmp_path / "a.jsonl")


def test_the_text_of_retention_is_relative_to_the_recipe_too(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file(MINIMAL), ["train.retention={text: held-out.txt}"])
    assert recipe.train.retention.text == str(tmp_path / "held-out.txt")


def test_an_absolute_path_of_the_blend_stays(recipe_file):
    recipe = load_recipe(recipe_file(MINIMAL.replace("a.jsonl", "/data/a.jsonl")))
    assert recipe.blend[0].path == "/data/a.jsonl"


def test_a_word_of_the_command_line_overrides_a_key_at_any_depth(recipe_file):
    words = ["train.lr.adapter=2e-4", "model.train.encoder=full", "train.spec_augment=null"]
    recipe = load_recipe(recipe_file(MINIMAL), words)
    assert recipe.train.lr.adapter == 2e-4
    assert recipe.model.train.encoder == "full"
    assert recipe.train.spec_augment is None


def test_a_dumped_recipe_is_read_back_equal(recipe_file):
    recipe = load_recipe(recipe_file(MINIMAL), ["train.steps=7", "train.warmup=0"])
    assert load_recipe(recipe_file(dump_recipe(recipe))) == recipe


def test_every_setting_says_what_it_is():
    fields = [
        (kind, name, field) for kind in all_settings() for name, field in kind.model_fields.items()
    ]
    assert {Recipe, ServerConfig} < {kind for kind, _, _ in fields} and len(fields) > 40
    assert [
        f"{kind.__name__}.{name}" for kind, name, field in fields if not field.description
    ] == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.adapter.stak=2", "unknown key 'model.adapter.stak'; did you mean 'stack'?"),
        ("train.spec_augment.freq_maks=2", "'train.spec_augment.freq_maks'; did you mean 'freq_ma"),
        ("rnu=a", "unknown key 'rnu'; did you mean 'run'?"),
        ("train.zzz=1", "unknown key 'train.zzz'; known here: adapter_first, betas,"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_one(recipe_file, key, message):
    with pytest.raises(ValueError, match=f"recipe.yaml: .*{re.escape(message)}"):
        load_recipe(recipe_file(MINIMAL), [key])


def test_a_misspelt_key_of_a_source_is_refused_with_the_nearest_one(recipe_file):
    with pytest.raises(ValueError, match=r"'blend.0.wieght'; did you mean 'weight'\?"):
        load_recipe(recipe_file(MINIMAL.replace("path:", "wieght: 2, path:")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.steps=0"], "'train.steps': .*greater than 0, not 0"),
        (["train.betas=[0.9]"], "'train.betas.1': Field required"),
        (["model.adapter.heads=3"], "heads is 3, which does not divide width 512"),
        (["train.steps=10"], "warmup is 100, but the run has 10 steps"),
        (["train.adapter_first=1000"], "adapter_first is 1000, but the run has 1000 steps"),
        (
            ["train.adapter_first=9", "train.ctc_weight=0"],
            "adapter_first trains by CTC alone, but ctc_weight is 0",
        ),
        (
            ["train.frame_cache_gb=1"],
            "frame_cache_gb needs clips that .*; set spec_augment to null",
        ),
        (
            ["train.frame_cache_gb=1", "train.spec_augment=null", "model.train.encoder=lora"],
            "frame_cache_gb needs a frozen encoder, but model.train.encoder is 'lora'",
        ),
        (["blend=[]"], "'blend': .*at least 1 item"),
        (["model.lora.alpha=4.5"], "'model.lora.alpha': .*integer.*, not 4.5"),
        (["steps"], "'steps' is no override; write key=value"),
        (["=1"], "'=1' is no override"),
        (["run.name=a"], "'run.name=a': 'run' is a value, not a group"),
        (["run=[a"], r"'run=\[a': not YAML"),
    ],
)
def test_a_bad_value_is_refused_and_never_repaired(recipe_file, words, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe_file(MINIMAL), words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [", "recipe.yaml: not YAML"),
        ("- a", "recipe.yaml: a recipe must be a mapping"),
        ("run: a\n", "'blend': Field required"),
        (MINIMAL + "- {name: asr, path: b.jsonl}\n", "blend names 'asr' twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(recipe_file, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe_file(text))


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: no such recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        AdapterConfig().stack = 2


def test_the_settings_of_a_group_are_validated_with_their_place_named():
    with pytest.raises(ValueError, match="^here: unknown key 'stak'; did you mean 'stack'"):
        validate(AdapterConfig, {"stak": 1}, "here")
    assert validate(Recipe, {"run": "a", "blend": [{"name": "a", "path": "b"}]}, "here").run == "a"
