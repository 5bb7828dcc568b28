"""What the tests of LoRA share: small models, layouts, and runs that one process makes one after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from toy_runs import losses, random_pairs, run_script, write_shards

STEPS, HALF = 8, 4
RANK, ALPHA, LR, DECAY, CLIP, SEED = 4, 8.0, 0.01, 0.1, 0.3, 1234
CONVERSATIONS, PACKS = 16, 8
ALL = ("q", "k", "v", "o", "gate", "up", "down")
TINY = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256, "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "Llama", "config": TINY},
    "qwen2": {"kind": "Qwen2", "config": {**TINY, "vocab_size": 131, "tie_word_embeddings": True}},
    "moe": {"kind": "Qwen3Moe", "config": {**TINY, **EXPERTS, "router_aux_loss_coef": 0.0}},
}
TP2 = ("--tensor-model-parallel-size=2",)
SP2 = (*TP2, "--sequence-parallel")
PP2 = ("--pipeline-model-parallel-size=2",)
VPP2 = (*PP2, "--num-layers-per-virtual-pipeline-stage=1")
FULL = ("--recompute-granularity=full", "--recompute-method=uniform", "--recompute-num-layers=1")
DISTOPT = ("--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather")


class Runs:
    """Runs that one process makes, one after the other; `made` has their outputs by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: dict[str, dict[str, Any]] = {}
        pairs = random_pairs(CONVERSATIONS, seed=4)
        self.pairs = pairs
        self.shards = write_shards(folder / "shards", {"train": pairs})

    def add(
        self,
        name: str,
        batching: str,
        nproc: int,
        flags: tuple[str, ...],
        *,
        model: str = "llama",
        capture: Path | None = None,
        fused: bool = False,
        **job: Any,
    ) -> None:
        """Ask for a run; `flags` win over the common ones, `job` over the job's fields."""
        samples = CONVERSATIONS if batching == "padded" else PACKS
        words = [f"--global-batch-size={samples}", f"--train-iters={STEPS}", "--seq-length=64", f"--seed={SEED}"]
        words += [f"--lr={LR}", f"--min-lr={LR}", "--lr-decay-style=constant", f"--weight-decay={DECAY}"]
        words += [f"--clip-grad={CLIP}", "--log-interval=1", "--eval-iters=0", "--save-interval=100", *flags]
        made = {"shards": [str(self.shards)], "device": "cpu", "flags": words, "batching": batching}
        made |= {"model": str(self.folder / model), "lora_rank": RANK, "lora_alpha": ALPHA, **job}
        if capture is not None:
            capture.mkdir()
        self.asked[name] = {
            "job": made,
            "nproc": nproc,
            "capture": str(capture) if capture is not None else None,
            "fused": fused,
        }

    def made(self, *, reference: bool = False) -> tuple[list[list[float]], dict[str, str]]:
        """The oracle's losses and norms, and each run's output."""
        wanted = {
            "folder": str(self.folder / "llama"),
            "conversations": [[list(map(int, ids)), list(map(int, mask))] for ids, mask in self.pairs],
            "rank": RANK,
            "alpha": ALPHA,
            "targets": ALL,
            "steps": STEPS,
            "seed": SEED,
            "lr": LR,
            "weight_decay": DECAY,
            "clip": CLIP,
        }
        asked = {
            "models": {str(self.folder / name): model for name, model in MODELS.items()},
            "reference": wanted if reference else None,
            "runs": [*self.asked.values()],
        }
        (self.folder / "asked.json").write_text(json.dumps(asked))
        done = json.loads(run_script("lora_runs.py", self.folder / "asked.json", timeout=590).stdout.splitlines()[-1])
        for name, (codes, output) in zip(self.asked, done["runs"], strict=True):
            assert not any(codes), f"{name}: {output[-4000:]}"
        outputs = [output for _, output in done["runs"]]
        return done["reference"], dict(zip(self.asked, outputs, strict=True))


def norms(output: str) -> list[float]:
    return [float(text) for text in re.findall(r"exact norm: (\S+)", output)]


def by_step(output: str) -> dict[int, float]:
    """Losses, without the second line after a start, of which Megatron prints the mean of two steps."""
    found = losses(output)
    return {step: loss for step, loss in found.items() if step != min(found) + 1}
