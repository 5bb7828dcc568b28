"""Let Megatron's distributed optimizer load checkpoints with torch's AdamW.

Megatron uses torch's AdamW if neither Transformer Engine nor Apex is installed, which is rare on GPUs. Loading a
checkpoint then fails in three ways (megatron-core 0.12 to 0.19, `DistributedOptimizer.state_dict` and
`load_state_dict`):

- Loading first asks the optimizer for its state and asserts that there is one step count; AdamW has none before its
  first step.
- The loaded step count is one tensor shared by all parameters, which AdamW increments once for each of them, or it is
  overwritten with the count from before loading (torch_dist).
- Parameters in float32 are their own main parameters, and autograd forbids copying into them.
"""

from __future__ import annotations

from typing import Any


def repair() -> None:
    """Patch `DistributedOptimizer`: AdamW has state before its first step, and each parameter its own step count."""
    import torch
    from megatron.core.optimizer import distrib_optimizer

    kind: Any = distrib_optimizer.DistributedOptimizer
    if getattr(distrib_optimizer, "HAVE_APEX_OR_TE", True) or getattr(kind, "repaired", False):
        return
    state_dict, load_state_dict = kind.state_dict, kind.load_state_dict

    def with_state(self: Any) -> Any:
        if isinstance(self.optimizer, (torch.optim.Adam, torch.optim.AdamW)):
            for group in self.optimizer.param_groups:
                for value in group["params"]:
                    if not self.optimizer.state[value]:
                        moments = {name: torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq")}
                        self.optimizer.state[value] = {"step": torch.tensor(0.0), **moments}
        return state_dict(self)

    def with_own_steps(self: Any, loaded: Any) -> None:
        steps = {group["step"] for group in loaded["optimizer"]["param_groups"] if "step" in group}
        with torch.no_grad():
            load_state_dict(self, loaded)
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"] = torch.tensor(float(max(steps)))

    kind.state_dict, kind.load_state_dict, kind.repaired = with_state, with_own_steps, True
