"""A model built by --hf-config computes what transformers computes: the same logits, for each architecture.

That is what proves rotary base and scaling, norms, biases, the order of heads in groups, and the routing of experts.
Each case also names changes to its config.json that must show in the logits; without that, equality would say little.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from toy_runs import random_pairs, run_script, write_shards

pytestmark = pytest.mark.megatron

TOLERANCE = 1e-4
"""Of float32 logits of a size around 10."""

SMALL = {
    "vocab_size": 136, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-2, "head_dim": 32,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "tie_word_embeddings": False,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
BASE = {"rope_parameters": {"rope_theta": 10000.0}}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}

CASES: list[dict[str, Any]] = [
    {"name": "llama", "kind": "Llama", "config": SMALL, "altered": [BASE, {"rms_norm_eps": 1e-5}]},
    {"name": "llama, as many keys as queries", "kind": "Llama", "config": {**SMALL, "num_key_value_heads": 4, "head_dim": 16}},
    {
        "name": "llama 3.1, scaled by 8",
        "kind": "Llama",
        "config": {**SMALL, "rope_parameters": SCALED},
        "altered": [{"rope_parameters": {"factor": 32.0}}, {"rope_parameters": {"rope_type": "default"}}],
    },
    {
        "name": "llama 3.2, scaled by 32, tied",
        "kind": "Llama",
        "config": {**SMALL, "rope_parameters": {**SCALED, "factor": 32.0}, "tie_word_embeddings": True},
        "altered": [{"rope_parameters": {"factor": 8.0}}],
    },
    {"name": "mistral", "kind": "Mistral", "config": {**SMALL, "sliding_window": None}, "altered": [BASE]},
    {
        "name": "qwen 2",
        "kind": "Qwen2",
        "config": {**{key: value for key, value in SMALL.items() if key != "head_dim"}},
        "altered": [BASE, {"architectures": ["LlamaForCausalLM"]}],
    },
    {"name": "qwen 3", "kind": "Qwen3", "config": SMALL, "altered": [BASE, {"architectures": ["LlamaForCausalLM"]}]},
    {
        "name": "qwen 3 moe",
        "kind": "Qwen3Moe",
        "config": {**SMALL, **EXPERTS, "norm_topk_prob": True},
        "altered": [BASE, {"norm_topk_prob": False}, {"num_experts_per_tok": 3}],
    },
    {
        "name": "qwen 3 moe, every other layer, weights as they are",
        "kind": "Qwen3Moe",
        "config": {**SMALL, **EXPERTS, "norm_topk_prob": False, "decoder_sparse_step": 2},
        "altered": [{"norm_topk_prob": True}],
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("oracle")
    shards = write_shards(folder / "shards", {"train": random_pairs(4, seed=1)})
    (folder / "cases.json").write_text(json.dumps(CASES))
    found = json.loads(run_script("loss_oracle.py", folder / "cases.json", shards).stdout.splitlines()[-1])
    return {each["name"]: each for each in found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_logits_are_those_of_transformers(results: dict[str, Any], case: dict[str, Any]) -> None:
    found = results[case["name"]]
    assert 1 < found["scale"] < 100
    assert found["error"] < TOLERANCE
    assert len(found["altered"]) == len(case.get("altered", []))
    assert all(error > 10 * TOLERANCE for error in found["altered"]), "a wrong shape must show"
