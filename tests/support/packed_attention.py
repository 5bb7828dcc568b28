"""At fixed weights: packs against the same conversations one by one, and poison in one conversation of a pack."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np
import single_rank

from sft_shards.trainer.job import Job


def main(shards: str, flags: list[str]) -> None:
    model, provider = single_rank.build(
        Job(shards=(shards,), device="cpu", random_weights=True, loss_chunk=5, flags=tuple(flags))
    )
    import torch
    from torch.utils.data import default_collate

    from sft_shards.trainer.mcore.forward_step import ForwardStep
    from sft_shards.trainer.mcore.loss import loss_func

    stage = provider.stage
    mixture = stage.train
    reader = stage.reader(mixture.sources[0].plan, 0)
    packs = len(reader.plan)
    forward_step = stage.forward_step()
    assert forward_step.packed

    def gradients(run: Any) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        total = run()
        return total, {name: value.grad.clone() for name, value in model.named_parameters()}

    def packed(micro_batch: int, step: ForwardStep = forward_step) -> float:
        total = 0.0
        for at in range(0, packs, micro_batch):
            batch = default_collate([reader[number] for number in range(at, min(packs, at + micro_batch))])
            output, loss_of = step(iter([batch]), model)
            loss, _, _ = loss_of(output)
            loss.backward()
            total += float(loss.detach())
        return total

    def one_by_one() -> float:
        """With nothing of the trainer's but the loss function: whole conversations from the shards, causal."""
        total = 0.0
        split = reader.plan.split
        for row in range(len(split)):
            ids, mask = (torch.from_numpy(np.array(part, dtype=np.int64)) for part in split[row])
            positions = torch.arange(len(ids) - 1).unsqueeze(0)
            losses = model(ids[None, :-1], positions, None, labels=ids[None, 1:])
            loss, _, _ = loss_func(mask[None, 1:].float(), losses)
            loss.backward()
            total += float(loss.detach())
        return total

    alone_loss, alone_grads = gradients(one_by_one)

    def against(run: Any) -> dict[str, float]:
        loss, grads = gradients(run)
        apart = {name: float((grads[name] - alone_grads[name]).abs().max()) for name in grads}
        size = {name: float(alone_grads[name].abs().max()) for name in grads}
        return {
            "loss": abs(loss - alone_loss) / alone_loss,
            "gradient": max(apart[name] / max(size[name], 1e-6) for name in grads),
        }

    def logits(batch: dict[str, torch.Tensor], step: ForwardStep) -> torch.Tensor:
        made = step.get_batch(iter([batch]))
        with torch.no_grad():
            packed = {name: made[name] for name in ("packed_seq_params",) if made[name] is not None}
            return model(made["tokens"], made["position_ids"], None, **packed)[0]

    number = max(range(packs), key=lambda each: len(reader.conversations(each)))
    pack = default_collate([reader[number]])
    starts = np.flatnonzero(pack["position_ids"][0].numpy() == 0).tolist()
    poisoned = {**pack, "tokens": pack["tokens"].clone()}
    inside = slice(starts[1], starts[2])
    poisoned["tokens"][0, inside] = (poisoned["tokens"][0, inside] + 31) % 120
    causal = ForwardStep(packed=False)

    def changed(step: ForwardStep) -> list[bool]:
        """By segment: did any logit change, by a single bit?"""
        a, b = (logits(each, step).view(torch.int32) for each in (pack, poisoned))
        bounds = [*starts, len(a)]
        return [not torch.equal(a[x:y], b[x:y]) for x, y in itertools.pairwise(bounds)]

    print(
        json.dumps(
            {
                "packs": packs,
                "conversations": len(reader.plan.split),
                "parameters": len(alone_grads),
                "micro-batch 1": against(lambda: packed(1)),
                "micro-batch 4": against(lambda: packed(4)),
                "without isolation": against(lambda: packed(1, causal)),
                "poison": changed(forward_step),
                "poison without isolation": changed(causal),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
