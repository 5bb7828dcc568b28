"""What goes wrong inside Megatron when a checkpoint is resumed with other flags, in words that name the remedy.

Megatron compares schedule and optimizer of a checkpoint with those of the flags deep inside `pretrain()`, and raises
whatever the comparison comes upon: an AssertionError (the schedule), and from 0.19 on a ValueError or, with the
distributed optimizer, a KeyError whose key is a tuple (learning rates, which are part of a parameter group's name).
"""

from __future__ import annotations

import traceback

RESUME = (AssertionError, ValueError, KeyError)
"""What `explain` looks at."""


def explain(error: BaseException, load: str | None) -> str | None:
    """Say what a resumed run has otherwise than its checkpoint; None where the error is about something else.

    Args:
        error: as it came out of `pretrain()`.
        load: the folder of the checkpoint.
    """
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError) and "OptimizerParamScheduler" in text:
        return (
            f"--load {load}: its learning-rate schedule is another one ({text}); give the same --train-iters and --lr, "
            "or --override-opt-param-scheduler to go on with the new schedule"
        )
    if "Could not find parameter group with key" in text or _unknown_group(error):
        return (
            f"--load {load}: its optimizer was saved with another --lr, --min-lr or weight decay, which this Megatron "
            "does not change when it resumes; give the same ones, or --finetune to begin anew from its weights"
        )
    return None


def _unknown_group(error: BaseException) -> bool:
    """A KeyError of the distributed optimizer, whose parameter groups are named by tuples."""
    if not isinstance(error, KeyError) or not error.args or not isinstance(error.args[0], tuple):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith("distrib_optimizer.py")
