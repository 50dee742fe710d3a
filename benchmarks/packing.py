"""Text alone: our packed rows beside TRL's, with the same LLM and LoRA.

    python benchmarks/packing.py                     (pip install trl)

The texts of benchmarks/train.py, up to --longest tokens, which fit TRL's max_length of 1,024. TRL
packs them (bfd) and runs at its defaults: 8 rows of 1,024 a step, bf16, activations recomputed;
then one row a step with nothing recomputed, which is the best that it does here.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from peft import LoraConfig, get_peft_model
from train import (
    LINEAR,
    Item,
    llm_config,
    options,
    our_run,
    packed_rows,
    serve,
    side_by_side,
    train_ours,
    workload,
)

CONTENDERS = ("ours", "TRL, its defaults", "TRL, one row a step")


def trl(layers: int, **settings: object) -> Callable[[list[Item]], None]:
    """Return what trains TRL's packed rows once."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    lora = LoraConfig(r=32, lora_alpha=32, target_modules=LINEAR, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_config(llm_config(layers)), lora)
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )

    def once(items: list[Item]) -> None:
        records = [
            {
                "input_ids": [*item.prompt, *item.answer],
                "completion_mask": [0] * len(item.prompt) + [1] * len(item.answer),
            }
            for item in items
        ]
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(
                folder,
                packing=True,
                completion_only_loss=True,
                num_train_epochs=1,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **settings,
            )
            SFTTrainer(
                model=model,
                args=config,
                train_dataset=Dataset.from_list(records),
                processing_class=tokenizer,
            ).train()

    return once


def main() -> None:
    """Serve as one contender, or let all of them take turns."""
    given = options(__doc__.splitlines()[0]).parse_args()
    if not given.only:
        command = [sys.executable, str(Path(__file__))]
        for key in ("conversations", "longest", "layers"):
            command += [f"--{key}", str(getattr(given, key))]
        side_by_side(CONTENDERS, command, given.rounds)
        return
    items = [item for item in workload(2 * given.conversations, given.longest) if item.clip is None]
    if given.only == "ours":
        run = our_run(given.layers)
        serve(lambda items: train_ours(run, packed_rows(items)), items)
    elif given.only == CONTENDERS[1]:
        serve(trl(given.layers), items)
    else:
        settings = {"per_device_train_batch_size": 1, "gradient_checkpointing": False}
        serve(trl(given.layers, **settings), items)


if __name__ == "__main__":
    main()
