"""A Hugging Face model whose answers are known: the next token depends on the last one alone, by a table.

A Llama of one layer that adds nothing to the embedding, and an output layer that holds, for each token, the embedding
of the token that is to precede it. No training, and what it generates is not a matter of numerics.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from preprocess_jobs import TOKENIZER


def write_bigram_model(folder: Path, words: list[str], *, stop: bool = True) -> Path:
    """A model that answers every prompt with `words`, each one token of the tokenizer in tests/data.

    Args:
        stop: it ends with `<|im_end|>`; otherwise it says the words again and again.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert all(len(each) == 1 for each in ids), ids
    header = tokenizer.encode("assistant\n", add_special_tokens=False)[-1]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chain = [header, *(each[0] for each in ids), end if stop else ids[0][0]]
    assert len(set(chain[:-1])) == len(chain) - 1, "each word once, or the table contradicts itself"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=4096, tie_word_embeddings=False, eos_token_id=end, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        embedding = torch.nn.functional.normalize(torch.randn_like(model.model.embed_tokens.weight), dim=-1)
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.zero_()
        for before, after in itertools.pairwise(chain):
            model.lm_head.weight[after] += embedding[before]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
