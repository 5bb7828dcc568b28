"""Transformers' logits beside Megatron's: a tiny model of each architecture, random weights, shape by --hf-config.

    loss_oracle.py CASES.json SHARDS      [{"name": …, "kind": "Llama", "config": {…}, "altered": [{…}, …]}, …]

Each case is a fork of a process that has imported everything. It builds the transformers model, saves its config.json
as `save_pretrained` does, lets `worker.prepare` make Megatron's arguments from it, builds the GPTModel, copies the
weights over, and compares. `altered` are changes to the config.json after which the logits must differ: they show
that the comparison would notice. The last line of output is a JSON list of {"error", "altered": [error, …], "flags"}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import single_rank
from warm_process import import_megatron

from sft_shards.trainer import worker
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model import provider

SEQ = 96


def main(path: str, shards: str) -> None:
    import_megatron("transformers")
    import torch
    import transformers

    found = []
    for case in json.loads(Path(path).read_text()):
        with tempfile.TemporaryDirectory() as folder:
            config = getattr(transformers, f"{case['kind']}Config")(**case["config"], attn_implementation="eager")
            torch.manual_seed(0)
            theirs = getattr(transformers, f"{case['kind']}ForCausalLM")(config).float().eval()
            for name, weight in theirs.named_parameters():
                spread = 0.15 if weight.dim() > 1 else 0.3
                torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, spread)
            config.architectures = [type(theirs).__name__]
            config.save_pretrained(folder)
            raw = json.loads((Path(folder) / "config.json").read_text())
            tokens = torch.randint(0, raw["vocab_size"], (2, SEQ))
            with torch.no_grad():
                expected = theirs(tokens).logits
            results = []
            for change in ({}, *case.get("altered", [])):
                (Path(folder) / "config.json").write_text(json.dumps(merged(raw, change)))
                results.append(forked(folder, shards, theirs.state_dict(), tokens, expected))
            scale = float(expected.abs().max())
        found.append({"name": case["name"], "error": results[0], "altered": results[1:], "scale": scale})
    print(json.dumps(found))


def merged(raw: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` over `raw`, mapping into mapping."""
    deeper = {key: merged(raw.get(key) or {}, value) for key, value in change.items() if isinstance(value, dict)}
    return {**raw, **change, **deeper}


def forked(folder: str, shards: str, weights: dict[str, Any], tokens: Any, expected: Any) -> float:
    """The largest difference between the logits, from a process that initialises Megatron anew."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, str(compare(folder, shards, weights, tokens, expected)).encode())
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert status == 0, f"{folder}: exit status {status}"
    return float(text)


def compare(folder: str, shards: str, weights: dict[str, Any], tokens: Any, expected: Any) -> float:
    import torch

    flags = (f"--seq-length={SEQ}", "--train-iters=1", "--lr=1e-3", "--eval-iters=0")
    job = Job(shards=(shards,), device="cpu", batching="padded", hf_config=folder, random_weights=True, flags=flags)
    single_rank.alone(job)
    with compat.quiet():
        configuration, _, _ = worker.prepare(job)
        from megatron.core.enums import ModelType
        from megatron.training.initialize import initialize_megatron
        from megatron.training.training import get_model

        compat.skip_compiling()
        with compat._command_line(configuration.argv):  # before 0.18 it parses again
            initialize_megatron(**compat.accepted(initialize_megatron, {"args_defaults": configuration.defaults}))
        (ours,) = get_model(provider.model_provider, ModelType.encoder_or_decoder, wrap_with_ddp=False)
    args = configuration.args
    converted = convert(weights, args, {name for name, _ in ours.named_parameters()})
    missing, unexpected = ours.load_state_dict(converted, strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if "_extra_state" not in name], missing
    positions = torch.arange(SEQ).unsqueeze(0).expand_as(tokens)
    with torch.no_grad():
        logits = ours.eval()(tokens, positions, None)
    assert logits.shape == expected.shape, "the rows of the checkpoint, no padding"
    return float((logits - expected).abs().max())


def convert(theirs: dict[str, Any], args: Any, wanted: set[str]) -> dict[str, Any]:
    """Transformers' weights by Megatron's names; those that the model of these flags does not have are left out."""
    import torch

    ours = {
        "embedding.word_embeddings.weight": theirs["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": theirs["model.norm.weight"],
        "output_layer.weight": theirs["lm_head.weight"],
    }
    groups = args.num_query_groups if args.group_query_attention else args.num_attention_heads
    for layer in range(args.num_layers):
        old, new = f"model.layers.{layer}.", f"decoder.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [theirs.get(f"{old}self_attn.{name}_proj.{kind}") for name in "qkv"]
            if parts[0] is not None:  # per group its query heads, its key, its value
                by_group = [part.reshape(groups, -1, args.kv_channels, *part.shape[1:]) for part in parts]
                joined = torch.cat(by_group, dim=1)
                ours[f"{new}self_attention.linear_qkv.{kind}"] = joined.reshape(-1, *joined.shape[3:])
        ours[f"{new}self_attention.linear_proj.weight"] = theirs[f"{old}self_attn.o_proj.weight"]
        ours[f"{new}input_layernorm.weight"] = theirs[f"{old}input_layernorm.weight"]
        ours[f"{new}pre_mlp_layernorm.weight"] = theirs[f"{old}post_attention_layernorm.weight"]
        for name in "qk":
            if (norm := theirs.get(f"{old}self_attn.{name}_norm.weight")) is not None:
                ours[f"{new}self_attention.{name}_layernorm.weight"] = norm
        if f"{old}mlp.gate.weight" not in theirs:
            gate, up = (theirs[f"{old}mlp.{name}_proj.weight"] for name in ("gate", "up"))
            ours[f"{new}mlp.linear_fc1.weight"] = torch.cat([gate, up])
            ours[f"{new}mlp.linear_fc2.weight"] = theirs[f"{old}mlp.down_proj.weight"]
            continue
        ours[f"{new}mlp.router.weight"] = theirs[f"{old}mlp.gate.weight"]
        for number in range(args.num_experts):
            expert = f"{new}mlp.experts.local_experts.{number}."
            ours[f"{expert}linear_fc1.weight"] = theirs[f"{old}mlp.experts.gate_up_proj"][number]
            ours[f"{expert}linear_fc2.weight"] = theirs[f"{old}mlp.experts.down_proj"][number]
    assert wanted <= ours.keys(), wanted - ours.keys()
    return {name: value for name, value in ours.items() if name in wanted}


if __name__ == "__main__":
    main(*sys.argv[1:])
