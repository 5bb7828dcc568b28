"""Ask a model folder its own training questions, with transformers alone: no Megatron, and nothing of ours.

    generate_answers.py QUESTIONS.json MODEL_DIR TOKENIZER_DIR…

QUESTIONS.json is a list of [question, answer]. The last line of output is a JSON list, for each folder named after it
(a model, and where its tokenizer lies): [[text, stopped by itself], …].
"""

from __future__ import annotations

import json
import sys
from typing import Any

for name in ("megatron", "megatron.core", "sft_shards"):
    sys.modules[name] = None  # type: ignore[assignment]


def main(path: str, *folders: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    found = []
    for model_folder, tokenizer_folder in zip(folders[::2], folders[1::2], strict=True):
        tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
        model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
        said = []
        with open(path, encoding="utf-8") as file:
            questions = json.load(file)
        for question, _ in questions:
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            made = model.generate(**ids, max_new_tokens=60, do_sample=False)[0][ids["input_ids"].shape[1] :]
            said.append([tokenizer.decode(made, skip_special_tokens=True), len(made) < 60])
        found.append(said)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
