"""vLLM's side door: what it calls when it starts, and how it is started with a model of ours."""

import os
import shutil
import sys
from pathlib import Path

from voicetextblender.model.configuration import SpeechLMConfig


def register() -> None:
    """Make exported models known to vLLM, in whichever of its processes this is called."""
    from vllm import ModelRegistry  # pyright: ignore  # in an environment of its own

    import voicetextblender.model.processing  # noqa: F401  registers the processor

    ModelRegistry.register_model("SpeechLM", "voicetextblender.serve.vllm:VllmSpeechLM")


def command(model: Path, host: str, port: int, name: str, more: list[str]) -> list[str]:
    """Return the words that start vLLM's server with an exported model.

    Raises ValueError if the model was not exported, or if there is no vLLM.
    """
    if not (model / "config.json").is_file() or not SpeechLMConfig.from_pretrained(model).is_whole:
        raise ValueError(
            f"{model}: vLLM serves exported models only; "
            f"make one with 'vtb export {model} --to vllm --out DIR' and name that folder"
        )
    places = (os.environ.get("VTB_VLLM"), Path(sys.executable).with_name("vllm"), "vllm")
    places = (*places, ".venv-vllm/bin/vllm")
    found = next(filter(None, (shutil.which(str(place)) for place in places if place)), None)
    if found is None:
        raise ValueError(
            "there is no command 'vllm' here; run 'make vllm', which installs it in an environment "
            "of its own, or name the command in VTB_VLLM"
        )
    # Clips stand in a message where they were put, as in training, not all before its text.
    as_trained = ["--interleave-mm-strings", "--chat-template-content-format", "string"]
    where = ["--host", host, "--port", str(port), "--served-model-name", name]
    return [found, "serve", str(model), *where, *as_trained, *more]
