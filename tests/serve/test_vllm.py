"""vLLM, the real one, in its own environment (`make vllm`), beside our model: the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from voicetextblender import audio
from voicetextblender.batch import collate
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.config import ModelConfig
from voicetextblender.export import export
from voicetextblender.model.generate import Decoding, generate
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.prompt import AUDIO_SLOT
from voicetextblender.serve.plugin import command
from voicetextblender.text import transcribe_instruction

ROOT = Path(__file__).parents[2]
VLLM = Path(os.environ.get("VTB_VLLM", ROOT / ".venv-vllm/bin/vllm"))
needs_vllm = pytest.mark.skipif(not VLLM.exists(), reason="run make vllm first")
TALK = Conversation(
    "talk",
    (
        user("What is said here?", Audio("a")),
        assistant("Somebody says hello."),
        user(Audio("b"), "And here?", Audio("c"), "Be brief."),
    ),
)
OFFLINE = """
import json, sys
import numpy as np
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    folder, asked = sys.argv[1:]
    given = json.loads(open(asked).read())
    clips = [(np.load(path), 16000) for path in given["clips"]]
    llm = LLM(folder, dtype="float32", max_model_len=1024, enforce_eager=True, seed=0,
              limit_mm_per_prompt={"audio": 4}, kv_cache_memory_bytes=1 << 28,
              skip_mm_profiling=True)
    prompt = {"prompt_token_ids": given["ids"], "multi_modal_data": {"audio": clips}}
    params = SamplingParams(temperature=0, max_tokens=24, logprobs=5, prompt_logprobs=5)
    out = llm.generate([prompt], params)[0]
    flat = lambda rows: [row and {int(k): v.logprob for k, v in row.items()} for row in rows]
    print("RESULT" + json.dumps({
        "ids": out.prompt_token_ids, "tokens": list(out.outputs[0].token_ids),
        "prompt": flat(out.prompt_logprobs), "answer": flat(out.outputs[0].logprobs)}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The packaged parts with a random adapter and random updates, merged."""
    torch.manual_seed(0)
    settings = ModelConfig()
    processor = SpeechLMProcessor.from_parts(settings)
    model = SpeechLM.from_parts(settings, processor.audio_token_id).eval()
    with torch.no_grad():
        for parameter in (p for part in model.trained_parts().values() for p in part):
            parameter += 0.01 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("vllm")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    export(folder / "model", "vllm", folder / "out", "float32")
    return folder / "out"


def run_offline(folder, tmp_path, ids, clips):
    import numpy as np

    paths = [tmp_path / f"{n}.npy" for n in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        np.save(path, clip)
    (tmp_path / "asked.json").write_text(json.dumps({"ids": ids, "clips": list(map(str, paths))}))
    (tmp_path / "offline.py").write_text(OFFLINE)
    python = VLLM.with_name("python")
    words = [python, tmp_path / "offline.py", folder, tmp_path / "asked.json"]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # imports vLLM only once
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1500)
    assert "RESULT" in run.stdout, run.stdout[-3000:] + run.stderr[-3000:]
    return json.loads(run.stdout.partition("RESULT")[2].splitlines()[0])


@needs_vllm
@pytest.mark.slow
def test_vllm_gives_our_logits_and_our_answer_to_a_talk_with_three_clips(exported, tmp_path, sound):
    processor = SpeechLMProcessor.from_pretrained(exported)
    model = SpeechLM.from_pretrained(exported, dtype=torch.float32)
    clips = [sound(1.1), sound(0.7, 1), sound(2.3, 2)]
    sample = processor.encode(TALK, clips, purpose="answer")
    slot = processor.audio_token_id
    ids = [
        slot if token == AUDIO_SLOT else token
        for token in processor.prompter.encode_for_answer(TALK).ids
    ]
    theirs = run_offline(exported, tmp_path, ids, clips)
    assert theirs["ids"] == sample.ids
    batch = collate([sample], processor.num_mel_bins)
    with torch.inference_mode():
        sound_embeds, _ = model.embed_audio(batch.features, batch.clip_lens)
        embeds = model.embed(batch.input_ids, sound_embeds)
        hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens)
        ours = model.project(hidden)[0].float().log_softmax(-1)
    for place, row in enumerate(theirs["prompt"][1:]):
        for token, logprob in row.items():
            assert ours[place, int(token)].item() == pytest.approx(logprob, abs=2e-3)
    answer = "".join(c.text for c in generate(model, processor, [sample], Decoding(24)))
    assert processor.tokenizer.decode(theirs["tokens"], skip_special_tokens=True) == answer


def is_up(url):
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(exported):
    words = command(exported, "127.0.0.1", 8123, "tiny", ["--max-model-len", "1024"])
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 600  # a busy machine takes minutes to import vLLM
        while not is_up("http://127.0.0.1:8123/health"):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer after 600 s"
            time.sleep(1)
        yield "http://127.0.0.1:8123/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@needs_vllm
@pytest.mark.slow
def test_vllm_serves_chats_with_clips_and_transcriptions(
    exported, server, tmp_path, sound, monkeypatch
):
    import base64

    from openai import OpenAI

    client = OpenAI(base_url=server, api_key="none")
    clips = [sound(1.1), sound(0.7, 1)]
    paths = [tmp_path / f"{n}.wav" for n in range(2)]
    for path, clip in zip(paths, clips, strict=True):
        audio.save(path, clip)
    clips = [audio.load(path) for path in paths]
    data = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    part = [{"type": "input_audio", "input_audio": {"data": d, "format": "wav"}} for d in data]
    content = [{"type": "text", "text": "Compare"}, part[0], {"type": "text", "text": "with"}]
    theirs = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [*content, part[1]]}],
        temperature=0,
        max_tokens=12,
    )
    processor = SpeechLMProcessor.from_pretrained(exported)
    model = SpeechLM.from_pretrained(exported, dtype=torch.float32)

    def ours(turn, clips, tokens):
        sample = processor.encode(Conversation("c", (turn,)), clips, purpose="answer")
        return sample, "".join(
            chunk.text for chunk in generate(model, processor, [sample], Decoding(tokens))
        )

    sample, answer = ours(user("Compare", Audio("a"), "with", Audio("b")), clips, 12)
    assert theirs.usage.prompt_tokens == len(sample.ids)
    assert theirs.choices[0].message.content.strip() == answer.strip()
    with paths[0].open("rb") as file:
        heard = client.audio.transcriptions.create(
            model="tiny", file=file, language="en", temperature=0, extra_body={"max_tokens": 12}
        )
    _, answer = ours(user(transcribe_instruction("en"), Audio("a")), clips[:1], 12)
    assert heard.text.strip().startswith(answer.strip()[:20])


def test_a_model_that_was_not_exported_is_refused(tmp_path, build, processor):
    build().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="exported models only; make one with 'vtb export"):
        command(tmp_path / "model", "127.0.0.1", 8000, "m", [])


def test_without_vllm_the_error_says_how_to_get_it(tmp_path, build, processor, monkeypatch):
    build().save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    export(tmp_path / "run", "vllm", tmp_path / "out")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="no command 'vllm' here; run 'make vllm'"):
        command(tmp_path / "out", "127.0.0.1", 8000, "m", [])
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{Path(name).name}")
    words = command(tmp_path / "out", "127.0.0.1", 8000, "m", ["--max-model-len", "512"])
    assert words[:3] == ["/bin/vllm", "serve", str(tmp_path / "out")]
    assert words[-2:] == ["--max-model-len", "512"]
