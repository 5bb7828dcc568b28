"""Train on a few conversations through pretrain(), then answer their prompts greedily; JSON on the last line."""

from __future__ import annotations

import json
import sys

import numpy as np
import single_rank

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.job import Job


def main(shards: str, flags: list[str]) -> None:
    model = single_rank.train(Job(shards=(shards,), device="cpu", random_weights=True, flags=tuple(flags)))
    import torch

    split = ShardDirectory(shards).split("train")

    def logits(ids: list[int]) -> torch.Tensor:
        tokens = torch.tensor([ids])
        positions = torch.arange(len(ids)).unsqueeze(0)
        with torch.no_grad():
            return model(tokens, positions, None)[0]

    found = []
    for row in range(len(split)):
        ids, mask = (array.tolist() for array in split[row])
        start = mask.index(1)
        said = ids[:start]
        while len(said) < len(ids) + 8:
            said.append(int(logits(said)[-1].argmax()))
            if said[-1] == 1:
                break
        losses = torch.nn.functional.cross_entropy(logits(ids[:-1]), torch.tensor(ids[1:]), reduction="none")
        found.append({"answer": said[start:], "losses": [0.0, *np.round(losses.numpy(), 4).tolist()]})
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
