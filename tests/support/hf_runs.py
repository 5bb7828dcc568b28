"""Hugging Face folder → one step of `pretrain()` → checkpoint → Hugging Face folder, for many models and layouts.

    hf_runs.py CASES.json SHARDS FOLDER

CASES.json holds {"models": {name: {"kind": "Llama", "config": {…}, "dtype": "float32"}},
"cases": [{"model": name, "nproc": 2, "flags": […], "layers": "fused", "main": true}, …]}. Each model is made by transformers with random
weights; each case trains one step at a learning rate of 0 in forks of this process, with the logits written down by a
hook on the output layer. The last line of output is a JSON list, one entry for each case:

    error: largest difference between the logits and those of transformers on the same tokens
    scale: largest logit
    loss: as Megatron prints it
    different: tensors of the exported folder whose bits are not those of the model's folder
    main: whether the optimizer's float32 parameters are the model's values (with `"main": true`)

With `"layers": "fused"` norms are part of the linear layer behind them, under Transformer Engine's names.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked_ranks
import fused_layers
from toy_runs import losses
from warm_process import import_megatron

from sft_shards.trainer import worker
from sft_shards.trainer.model import export, provider

COMMON = (
    *("--seq-length=48", "--micro-batch-size=1", "--lr=0", "--min-lr=0", "--weight-decay=0", "--eval-iters=0"),
    *("--train-iters=1", "--log-interval=1", "--save-interval=1", "--global-batch-size=2"),
)


def main(path: str, shards: str, folder: str) -> None:
    import_megatron("transformers")
    asked = json.loads(Path(path).read_text())
    models = {name: make(Path(folder) / name, **model) for name, model in asked["models"].items()}
    found = [
        run(case, models[case["model"]], shards, Path(folder) / f"case-{n}") for n, case in enumerate(asked["cases"])
    ]
    print(json.dumps(found))


def make(folder: Path, *, kind: str, config: dict[str, Any], dtype: str = "float32", seed: int = 0) -> tuple[Path, Any]:
    """A model of transformers with random weights, large enough for its logits to tell, saved as a folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    built = getattr(transformers, f"{kind}Config")(**config, attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(built).to(getattr(torch, dtype)).eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.15 if weight.dim() > 1 else 0.3)
    model.save_pretrained(folder)
    return folder, model.float()


def run(case: dict[str, Any], model: tuple[Path, Any], shards: str, folder: Path) -> dict[str, Any]:
    import torch

    source, theirs = model
    folder.mkdir()
    job = {
        "shards": [shards],
        "device": "cpu",
        "batching": "padded",
        "cache_dir": str(folder.parent / "cache"),
        "model": str(source),
        "flags": [*COMMON, f"--save={folder}/out", f"--load={folder}/out", *case["flags"]],
    }
    provide, spec = worker.providing, provider.layer_spec
    worker.providing = capturing(provide, folder)
    if case.get("layers") == "fused":
        provider.layer_spec = fused_layers.spec
    codes, output = forked_ranks.run(job, case["nproc"], None)
    worker.providing, provider.layer_spec = provide, spec
    if any(codes):
        return {"failed": output[-6000:]}
    result: dict[str, Any] = {"error": 0.0, "scale": 0.0, "loss": losses(output)[1]}
    for tokens, positions, logits in caught(folder):
        with torch.no_grad():
            expected = theirs(tokens).logits.float().flatten(0, 1)[positions]
        result["error"] = max(result["error"], float((logits[..., : expected.shape[-1]] - expected).abs().max()))
        result["scale"] = max(result["scale"], float(expected.abs().max()))
    result["different"] = exported(folder / "out", folder / "hf", source)
    if case.get("main"):
        result["main"] = main_parameters(folder / "out/iter_0000001", source)
    shutil.rmtree(folder)
    return result


def capturing(provide: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """`providing`, with hooks that write down this rank's first step: tokens, and logits where there are any."""

    def providing(*args: Any) -> Callable[..., Any]:
        provider = provide(*args)

        def with_hooks(*args: Any, **kwargs: Any) -> Any:
            import torch
            from megatron.core import parallel_state

            from sft_shards.trainer.mcore import trained_logits

            model = provider(*args, **kwargs)
            place = f"{parallel_state.get_data_parallel_rank()}-{parallel_state.get_tensor_model_parallel_rank()}"

            def keep(name: str, value: Any) -> None:
                target = folder / f"{name}-{place}.pt"
                if not target.exists():
                    torch.save(value.detach().float().clone() if name == "logits" else value, target)

            if model.pre_process:
                model.embedding.register_forward_hook(
                    lambda module, inputs, kwargs, output: keep("tokens", kwargs.get("input_ids", *inputs[:1])),
                    with_kwargs=True,
                )
            if model.post_process:

                def computed(module: Any, inputs: Any, output: Any) -> None:
                    keep("positions", trained_logits._current[-1].positions)
                    keep("logits", output[0])

                model.output_layer.register_forward_hook(computed)
            return model

        return with_hooks

    return providing


def caught(folder: Path) -> Any:
    """Of each data-parallel rank tokens int64[b, s], positions int64[n] of these, one row behind the other, and their
    logits float32[n, padded vocabulary]."""
    import torch

    for tokens in sorted(folder.glob("tokens-*-0.pt")):
        rank = tokens.stem.split("-")[1]
        parts = [torch.load(path) for path in sorted(folder.glob(f"logits-{rank}-*.pt"))]
        positions = torch.load(folder / f"positions-{rank}-0.pt")
        yield torch.load(tokens), positions, torch.cat(parts, dim=-1)[:, 0]


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def exported(checkpoint: Path, target: Path, source: Path) -> list[str]:
    """Export a checkpoint; names of the tensors that differ from those of a model's folder."""
    import torch

    export.export(checkpoint, target)
    ours, theirs = tensors(target), tensors(source)
    same = {
        name
        for name in ours.keys() & theirs.keys()
        if ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
    }
    return sorted((ours.keys() | theirs.keys()) - same)


def main_parameters(step: Path, source: Path) -> bool:
    """Whether float32 parameters that the optimizer keeps are the folder's values, bit for bit, by torch's own reader.

    They are whole tensors, or with the distributed optimizer flat buffers, whose values are compared in order of size.
    """
    import torch
    import torch.distributed.checkpoint as dcp

    found = dcp.FileSystemReader(step).read_metadata().state_dict_metadata
    kept = [
        name for name in found if "fp32_param." in name or (name.startswith("optimizer.") and name.endswith(".param"))
    ]
    state = {name: torch.empty(found[name].size, dtype=found[name].properties.dtype) for name in kept}
    dcp.load(state, checkpoint_id=step, no_dist=True)
    ours = torch.cat([value.flatten().float() for value in state.values()]).sort().values
    theirs = torch.cat([value.float().flatten() for value in tensors(source).values()]).sort().values
    ours = ours[ours != 0] if len(ours) > len(theirs) else ours  # buffers are padded with zeros
    return bool(torch.equal(ours, theirs))


if __name__ == "__main__":
    main(*sys.argv[1:])
