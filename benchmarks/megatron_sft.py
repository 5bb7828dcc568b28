"""Megatron-LM's own SFT data set, from the installed wheel, on the conversations of shards: a peer for `step.py`.

Its `SFTDataset` takes lines of messages and tokenizes them when a sample is read. A line with one conversation is
padded; conversations behind each other in a line, each with a system message first, are its packs. Here a message is
the number of a conversation, and the tokenizer gives the stored ids and targets, so that model and step see the same
tokens as ours do; reading is not measured.

What follows is what `pretrain_gpt.py` of Megatron-LM (0.19, not in the wheel) does with a sample: with Transformer
Engine `PackedSeqParams` in either case. Megatron's own attention refuses those; a padded line is one segment, which is
the causal mask of all positions there, and its packs cannot be run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sft_shards.trainer.data.shards import Pair

NEEDS_ENGINE = "needs Transformer Engine: Megatron's own attention takes no packed rows"


class StoredIds:
    """Stands for the tokenizer: the text of a conversation's first message is its number.

    Args:
        conversations: ids and unshifted loss mask of each.
        vocab_size: ids are below it.
    """

    def __init__(self, conversations: Sequence[Pair], vocab_size: int) -> None:
        self.conversations = conversations
        self.unique_identifiers: dict[str, str] = {}
        self.vocab_size = vocab_size
        used = np.unique(np.concatenate([ids for ids, _ in conversations]))
        # Its loss mask leaves out labels of the padding id, whatever they are; so it must be no conversation's.
        unused = np.setdiff1d(np.arange(vocab_size), used)
        if not len(unused):
            raise SystemExit("every id occurs in these conversations, and its loss mask needs one that does not")
        self.pad = self.eod = int(unused[0])

    def tokenize_conversation(
        self, conversation: list[dict[str, str]], return_target: bool, add_generation_prompt: bool
    ) -> tuple[Any, Any]:
        """Return ids and targets, int64[L]; targets without loss are what the data set ignores."""
        from megatron.training.datasets.sft_dataset import IGNORE_INDEX

        assert return_target
        assert not add_generation_prompt
        ids, mask = self.conversations[int(conversation[0]["content"])]
        return ids.astype(np.int64), np.where(mask.astype(bool), ids.astype(np.int64), IGNORE_INDEX)


def samples(lines: Sequence[Sequence[Pair]], *, seq_length: int, vocab_size: int) -> list[dict[str, Any]]:
    """Return the samples of its data set, as it makes them.

    Args:
        lines: the conversations of each sample.
        vocab_size: ids are below it.
    """
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
    from megatron.core.datasets.utils import Split
    from megatron.training.datasets.sft_dataset import SFTDataset

    conversations = [pair for line in lines for pair in line]
    numbers = iter(range(len(conversations)))
    messages = [[{"role": "system", "content": str(next(numbers))} for _ in line] for line in lines]
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=seq_length,
        tokenizer=StoredIds(conversations, vocab_size),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        context_parallel_size=1,
    )
    made = SFTDataset(messages, None, np.arange(len(lines)), len(lines), Split.train, config)
    return [made[number] for number in range(len(lines))]


def step(batch: dict[str, Any], model: Any, *, engine: bool) -> Any:
    """Return the sum of the losses of trained positions, as `pretrain_gpt.py` computes it.

    Args:
        batch: one sample, collated.
        engine: the layers are Transformer Engine's.
    """
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams

    moved = {name: value.cuda(non_blocking=True) for name, value in batch.items()}
    size = moved["tokens"].shape[1]
    packed, mask = None, None
    if engine:
        bounds = torch.unique_consecutive(moved["cu_seqlens"].flatten())  # 0.19 pads it with the length of the row
        longest = int(batch["max_seqlen"].max())
        packed = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=longest, max_seqlen_kv=longest
        )
    else:
        mask = torch.ones(1, 1, size, size, dtype=torch.bool, device="cuda").triu(1)
    output = model(
        moved["tokens"],
        moved["position_ids"],
        mask,
        labels=moved["labels"],
        loss_mask=moved["loss_mask"],
        packed_seq_params=packed,
    )
    return (output.view(-1).float() * moved["loss_mask"].view(-1)).sum()
