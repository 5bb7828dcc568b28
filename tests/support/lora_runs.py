"""LoRA runs of `pretrain()` in forks, beside the same training by transformers, PEFT and torch's AdamW.

    lora_runs.py ASKED.json

ASKED.json holds {"models": {folder: {"kind": "Llama", "config": {…}}}, "reference": {…} or null, "runs": […]}: models
are made by transformers with random weights, `reference` is trained by `train_with_peft`, and runs are those of
forked_ranks.py. The last line of output is a JSON object: `reference`: [[loss, gradient norm] of each step], `runs`:
[exit statuses, output]; in the output stands `exact norm: …` for each gradient norm, of which Megatron prints three
digits.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import forked_ranks
import fused_layers
import hf_runs
from warm_process import import_megatron

from sft_shards.trainer import worker
from sft_shards.trainer.launch import cpu, environment, launcher
from sft_shards.trainer.model import provider


def main(path: str) -> None:
    environment.apply(environment.plan({**cpu.wanted(1, 1), **launcher.WARNINGS}, {}), os.environ)
    asked = json.loads(Path(path).read_text())
    # Before the stand-in for a GPU, which transformers must not see.
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for folder, model in asked["models"].items():
            pool.apply(make_model, (Path(folder), model))
        reference = pool.apply(train_with_peft, (asked["reference"],)) if asked.get("reference") else None
    import_megatron()
    say_exact_norms()
    runs = [run(each) for each in asked["runs"]]
    print(json.dumps({"reference": reference, "runs": runs}))


def run(asked: dict[str, Any]) -> tuple[list[int], str]:
    """One run; `capture` names a folder for the tokens and logits of its first step, `fused` other layers."""
    provide, spec = worker.providing, provider.layer_spec
    if asked.get("capture"):
        worker.providing = hf_runs.capturing(provide, Path(asked["capture"]))
    if asked.get("fused"):
        provider.layer_spec = fused_layers.spec
    try:
        return forked_ranks.run(asked["job"], asked["nproc"], None)
    finally:
        worker.providing, provider.layer_spec = provide, spec


def make_model(folder: Path, model: dict[str, Any]) -> None:
    """Write a model of random weights; norms and biases are not what they start with."""
    import torch
    import transformers

    torch.manual_seed(7)
    config = getattr(transformers, f"{model['kind']}Config")(**model["config"])
    made = getattr(transformers, f"{model['kind']}ForCausalLM")(config)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "norm" in name or name.endswith("bias"):
                value.add_(0.2 * torch.randn_like(value))
            else:
                value.mul_(3)
    made.save_pretrained(folder)


def say_exact_norms() -> None:
    """Print every gradient norm with all of its digits."""
    from megatron.core.optimizer import optimizer

    module: Any = optimizer
    clip = module.clip_grad_by_total_norm_fp32

    def clipped(parameters: Any, max_norm: float, total_norm: Any, *args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == "0":
            print(f"exact norm: {float(total_norm)!r}", flush=True)
        return clip(parameters, max_norm, total_norm, *args, **kwargs)

    module.clip_grad_by_total_norm_fp32 = clipped


def train_with_peft(asked: dict[str, Any]) -> list[list[float]]:
    """Train adapters by the token-weighted mean over all conversations in each step.

    Args:
        asked: `folder` of the model, `conversations` as [ids, unshifted mask], `rank`, `alpha`, `targets`, `steps`,
            AdamW's `lr` and `weight_decay`, `clip`, the norm that gradients are clipped to, and `seed`, by which A
            starts as ours does.

    Returns:
        Loss and gradient norm (before clipping) of each step.
    """
    import peft
    import torch
    import transformers

    from sft_shards.trainer.model.adapters import draw

    torch.set_num_threads(1)
    config = peft.LoraConfig(
        r=asked["rank"],
        lora_alpha=asked["alpha"],
        target_modules=[f"{target}_proj" for target in asked["targets"]],
        task_type="CAUSAL_LM",
    )
    base = transformers.AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name:
                module = name.removeprefix("base_model.model.").split(".lora_A")[0]
                value.copy_(draw(module, asked["rank"], value.shape[1], asked["seed"]))
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=asked["lr"], weight_decay=asked["weight_decay"])
    tokens = sum(sum(mask) for _, mask in asked["conversations"])
    found = []
    for _ in range(asked["steps"]):
        optimizer.zero_grad()
        total = 0.0
        for ids, mask in asked["conversations"]:
            logits = model(torch.tensor([ids])).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            loss = (losses * torch.tensor(mask[1:])).sum() / tokens
            loss.backward()
            total += float(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, asked["clip"]))
        optimizer.step()
        found.append([total, norm])
    return found


if __name__ == "__main__":
    main(sys.argv[1])
