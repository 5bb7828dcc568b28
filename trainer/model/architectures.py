"""The table of architectures: one entry says what a `config.json` means and what its tensors are called.

    ARCHITECTURES["Qwen2ForCausalLM"].qkv_bias     # True: --add-qkv-bias, and biases of q, k and v in the files

Two modules read the table: `hf_config` makes Megatron's flags from an entry and the numbers in `config.json`, and
`tensor_map` the rows that each Megatron tensor shares with the tensors in the files. Adding an architecture is one
entry here, and one case in tests/trainer/model/test_architectures.py that compares its logits with those of
transformers; docs/architectures.md goes through an example.

An entry may only describe what Megatron's GPTModel computes exactly, in every version from 0.12 on: pre-normalised
blocks, RMSNorm, SiLU with a gate, rotary positions that are the same in all layers, untied or tied embeddings. The
price of a table is that a model beyond it cannot be described; it is refused by name, which is what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Experts:
    """How a mixture-of-experts layer is described: keys of `config.json`, and names of modules below a layer."""

    count: tuple[str, ...] = ("num_experts", "num_local_experts")
    """Keys that hold the number of experts; the first one that is there counts."""
    hidden: str = "moe_intermediate_size"
    """Key of an expert's inner width."""
    normalised: str = ""
    """Key that says whether the weights of the chosen experts are made to sum to 1; "": they always are."""
    sparse: bool = False
    """`decoder_sparse_step` and `mlp_only_layers` say which layers have experts; otherwise all have."""
    router: str = "mlp.gate"
    gate: str = "mlp.experts.{expert}.gate_proj"
    up: str = "mlp.experts.{expert}.up_proj"
    down: str = "mlp.experts.{expert}.down_proj"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What is particular to one architecture; the defaults are Llama's."""

    head_dim: str = "derived"
    """`derived`: hidden_size / num_attention_heads where `head_dim` is not given; `stated`: it must be given."""
    grouped: bool = True
    """`num_key_value_heads` must be given; False: as many as there are query heads where it is not."""
    qkv_bias: bool | str = False
    """Whether q, k and v have biases; a text is the key of `config.json` that says so (missing: they have)."""
    qk_norm: bool = False
    """RMSNorm over each head of q and k, before the rotary positions."""
    window: str = ""
    """When `sliding_window` holds: "" never, `always`, or the key of `config.json` that switches it on."""
    rotary_percent: float = 1.0
    """Share of a head that is rotated, where `partial_rotary_factor` is not given."""
    rotary_interleaved: bool = False
    """Neighbouring values are rotated together, instead of values half a head apart."""
    experts: Experts | None = None
    """None: all layers are dense."""
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """Modules of the gate and of what it gates, in this order; one module that holds both one after the other."""
    down: str = "mlp.down_proj"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    ignored: tuple[str, ...] = field(default=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",))
    """Patterns of tensors that older files hold and that follow from `config.json`."""


QWEN3 = Architecture(head_dim="stated", qk_norm=True, window="use_sliding_window")

ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(grouped=False),
    "MistralForCausalLM": Architecture(window="always"),
    "Qwen2ForCausalLM": Architecture(qkv_bias=True, window="use_sliding_window"),
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3MoeForCausalLM": Architecture(
        head_dim="stated",
        qk_norm=True,
        window="use_sliding_window",
        experts=Experts(normalised="norm_topk_prob", sparse=True),
    ),
    "MixtralForCausalLM": Architecture(
        window="always",
        experts=Experts(
            count=("num_local_experts",),
            hidden="intermediate_size",
            router="block_sparse_moe.gate",
            gate="block_sparse_moe.experts.{expert}.w1",
            up="block_sparse_moe.experts.{expert}.w3",
            down="block_sparse_moe.experts.{expert}.w2",
        ),
    ),
    # GLM-4-9B in transformers' form (glm-4-9b-hf, glm-4-9b-chat-hf); Glm4ForCausalLM normalises after blocks as well.
    "GlmForCausalLM": Architecture(
        head_dim="stated",
        qkv_bias="attention_bias",
        rotary_percent=0.5,
        rotary_interleaved=True,
        gate_up=("mlp.gate_up_proj",),
    ),
}
"""By the one name that stands in `architectures` of `config.json`."""
