"""At fixed weights: what another label at each position does to the loss and to every gradient, bit by bit."""

from __future__ import annotations

import json
import sys
from typing import Any

import single_rank

from sft_shards.trainer.job import Job


def main(shards: str, flags: list[str]) -> None:
    model, provider = single_rank.build(
        Job(shards=(shards,), device="cpu", random_weights=True, batching="padded", flags=tuple(flags))
    )
    import torch
    from torch.utils.data import default_collate

    forward_step = provider.stage.forward_step()
    train, _, _ = provider((4, 0, 0))
    batch = default_collate([train[item] for item in range(3)])
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        output[0].retain_grad()
        kept.append(output[0])

    model.output_layer.register_forward_hook(keep)

    def step(labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        kept.clear()
        model.zero_grad()
        output, loss_func = forward_step(iter([{**batch, "labels": labels}]), model)
        loss, _, _ = loss_func(output)
        loss.backward()
        grads = {name: value.grad.clone() for name, value in model.named_parameters()}
        return loss.detach(), grads, kept[0].grad.flatten(0, 1)

    def bits(value: torch.Tensor) -> torch.Tensor:
        return value.contiguous().view(torch.int32)

    def change(labels: torch.Tensor) -> dict[str, bool]:
        loss, grads, _ = step(labels)
        return {
            "loss": not torch.equal(bits(loss), bits(plain_loss)),
            "gradient": any(not torch.equal(bits(grads[name]), bits(plain_grads[name])) for name in grads),
        }

    labels, mask = batch["labels"], batch["loss_mask"].bool()
    plain_loss, plain_grads, on_logits = step(labels)
    again = change(labels)
    positions = []
    for row in range(len(labels)):
        for place in range(labels.shape[1]):
            other = labels.clone()
            other[row, place] = (other[row, place] + 17) % 120
            positions.append({"row": row, "place": place, **change(other)})
    everywhere = torch.where(mask, labels, (labels + 29) % 120)
    print(
        json.dumps(
            {
                "again": again,
                "positions": positions,
                "everywhere": change(everywhere),
                "on_logits": (on_logits != 0).any(dim=-1).tolist(),
                "conversations": [train.mixture.locate(item)[1] for item in range(3)],
                "position_ids": batch["position_ids"].tolist(),
                "loss": float(plain_loss),
                "parameters": len(plain_grads),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
