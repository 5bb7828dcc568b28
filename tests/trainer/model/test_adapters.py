"""Parts of the adapters by themselves: the order of rows, the first values, the norm of Transformer Engine's layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sft_shards.trainer.model import adapters

pytestmark = pytest.mark.megatron


def test_rows_lie_by_group() -> None:
    """Two groups of two query heads, heads of width 1: q0 q1 k0 v0 q2 q3 k1 v1; without an adapter there are zeros."""
    q, k, v = torch.tensor([[[1.0, 2, 3, 4]]]), torch.tensor([[[10.0, 20]]]), torch.tensor([[[100.0, 200]]])
    widths = {"q": 2, "k": 1, "v": 1}
    assert adapters.weave({"q": q, "k": k, "v": v}, widths).tolist() == [[[1, 2, 10, 100, 3, 4, 20, 200]]]
    assert adapters.weave({"q": q, "v": v}, widths).tolist() == [[[1, 2, 0, 100, 3, 4, 0, 200]]]
    assert adapters.weave({"up": k}, {"gate": 2, "up": 2}).tolist() == [[[0, 0, 10, 20]]]
    assert adapters.weave({"o": q}, {"o": 4}) is q


def test_first_values_are_those_of_peft_and_depend_on_seed_and_name() -> None:
    import peft

    whole = adapters.draw("model.layers.0.self_attn.q_proj", 64, 400, 1)
    assert torch.equal(whole, adapters.draw("model.layers.0.self_attn.q_proj", 64, 400, 1))
    assert not torch.equal(whole, adapters.draw("model.layers.0.self_attn.q_proj", 64, 400, 2))
    assert not torch.equal(whole, adapters.draw("model.layers.0.self_attn.k_proj", 64, 400, 1))
    model = torch.nn.Sequential(torch.nn.Linear(400, 8))
    made = peft.get_peft_model(model, peft.LoraConfig(r=64, target_modules=["0"]))
    theirs = next(value for name, value in made.named_parameters() if "lora_A" in name)
    for each in (whole, theirs):
        assert each.shape == (64, 400)
        assert float(each.abs().max()) == pytest.approx(1 / 20, rel=1e-3), "uniform within 1 / sqrt(inputs)"
        assert float(each.std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_the_norm_in_front_of_an_adapter() -> None:
    x = torch.randn(3, 2, 8)
    linear = SimpleNamespace(layer_norm_weight=torch.randn(8), layer_norm_bias=torch.randn(8))
    config = SimpleNamespace(normalization="RMSNorm", layernorm_epsilon=1e-2, layernorm_zero_centered_gamma=False)
    norm = adapters.NormOf(linear, config)
    by_hand = x / (x.pow(2).mean(-1, keepdim=True) + 1e-2).sqrt() * linear.layer_norm_weight
    assert torch.allclose(norm(x), by_hand, atol=1e-6)
    config.layernorm_zero_centered_gamma = True
    assert torch.allclose(norm(x), by_hand / linear.layer_norm_weight * (1 + linear.layer_norm_weight), atol=1e-5)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    config.normalization, config.layernorm_zero_centered_gamma = "LayerNorm", False
    centred = x - x.mean(-1, keepdim=True)
    by_hand = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-2).sqrt() * linear.layer_norm_weight
    assert torch.allclose(norm(x), by_hand + linear.layer_norm_bias, atol=1e-5)
