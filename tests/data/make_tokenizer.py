"""Train the small tokenizer that ships beside this file, on the data that ships beside it: python make_tokenizer.py."""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def texts() -> Iterator[str]:
    for record in json.loads((HERE / "alpaca_en.json").read_text("utf-8")):
        yield from record.values()
    for name in ("chatml_zh.jsonl", "openai_tr.jsonl"):
        for line in (HERE / name).read_text("utf-8").split("\n"):
            record = json.loads(line) if line else {}
            yield record.get("text", "").replace("<|im_start|>", "").replace("<|im_end|>", "")
            yield from (message["content"] for message in record.get("messages", []))


def main() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    target = HERE / "tokenizer"
    target.mkdir(exist_ok=True)
    tokenizer.save(str(target / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "chat_template": TEMPLATE,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
