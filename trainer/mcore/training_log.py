"""Lines of our own while Megatron trains, and one at the end: loss, trained tokens in a second, time left.

Megatron logs iterations and their time. It does not know which positions carry loss, so it cannot say what a step was
worth, and it prints no time left. Its functions `training_log` (after each step) and `evaluate` are called as before;
what they are given and return is looked at. Both are names of `megatron.training.training` in every version from 0.12
on; the losses of a step are the first argument of the one, those of an evaluation the first value of the other.

The last rank prints, as it does Megatron's own lines: losses are known on the last pipeline stage alone.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

LOSS = "lm loss"
"""What the loss is called in the reports of `loss.loss_func`."""


@dataclass(kw_only=True)
class Meter:
    """Counts the trained tokens of this rank's micro-batches; `forward_step.ForwardStep` adds to it."""

    trained: int = 0


@dataclass(kw_only=True)
class TrainingLog:
    """What is said of a run while it trains and when it has ended."""

    meter: Meter
    seq_length: int
    """Positions of a sample."""
    say: Callable[[str], None]
    """Prints a line."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    started: float = field(init=False)
    steps: int = field(init=False, default=0)
    """Optimizer steps of this call."""
    trained: int = field(init=False, default=0)
    """Trained tokens of these steps, on all ranks, up to the last line."""
    loss: float | None = field(init=False, default=None)
    """Mean over the steps of the last line; None: none had a trained token, or this rank does not know."""
    evaluated: dict[str, float] = field(init=False, default_factory=dict)
    """Losses of the last evaluation, by name."""

    def __post_init__(self) -> None:
        self.started = self._since = self.clock()
        self._consumed: int | None = None
        self._pending: list[Any] = []
        self._at = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at Megatron's steps and evaluations while the block runs."""
        from megatron.training import training

        log, evaluate = training.training_log, training.evaluate

        def logged(losses: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            result = log(losses, *args, **kwargs)
            self._step(losses)
            return result

        def looked_at(*args: Any, **kwargs: Any) -> Any:
            result = evaluate(*args, **kwargs)
            if result and result[0]:
                self.evaluated = {name: float(loss) for name, loss in result[0].items()}
            return result

        training.training_log, training.evaluate = logged, looked_at
        try:
            yield
        finally:
            training.training_log, training.evaluate = log, evaluate

    def _step(self, losses: dict[str, Any]) -> None:
        """Count a step, and print a line if Megatron does so too."""
        from megatron.training import get_args

        args = get_args()
        self.steps += 1
        if LOSS in losses:
            self._pending.append(losses[LOSS])  # a tensor on the GPU: it is not waited for at every step
        done = args.curr_iteration + 1
        if done % args.log_interval == 0 or done == args.train_iters:
            self._line(args, done)

    def _line(self, args: Any, done: int) -> None:
        """Print what the steps since the last line came to.

        Args:
            args: Megatron's.
            done: steps that the whole run has made, those of earlier calls included.
        """
        trained = total(self.meter.trained)
        seconds, samples = self.clock() - self._since, args.consumed_train_samples - (self._consumed or 0)
        known = [float(loss) for loss in self._pending]
        known = [loss for loss in known if loss == loss]
        self.loss = sum(known) / len(known) if known else None
        steps, first = self.steps - self._at, self._consumed is None
        self._since, self._consumed, self._at = self.clock(), args.consumed_train_samples, self.steps
        self._pending, self.meter.trained, self.trained = [], 0, self.trained + trained
        words = [f"loss {self.loss:.4f}"] if self.loss is not None else []
        if not first and seconds > 0:  # the first steps load, compile and warm up
            if trained:
                words.append(f"{trained / seconds:,.0f} trained tokens/s")
            words.append(f"{samples * self.seq_length / seconds:,.0f} positions/s")
            if done < args.train_iters:
                words.append(f"{duration((args.train_iters - done) * seconds / steps)} left")
        if words:
            self.say(f"step {done:,}/{args.train_iters:,}: {', '.join(words)}")

    def evaluation(self, split: str) -> list[str]:
        """Return what an evaluation came to, in lines; none on ranks that do not know."""
        if LOSS not in self.evaluated:
            return []
        loss = self.evaluated[LOSS]
        rest = {name.removeprefix(f"{LOSS}/"): value for name, value in self.evaluated.items() if name != LOSS}
        return [
            f"{split}: loss {loss:.4f}, perplexity {math.exp(min(loss, 700)):.4f}",
            *(f"  {name}: loss {value:.4f}" for name, value in rest.items()),
        ]

    def end(self, saved: str | None) -> None:
        """Print what the run came to, after Megatron has returned.

        Args:
            saved: what is said of the checkpoint; None: --save was not given.
        """
        said = [f"{self.steps:,} steps in {duration(self.clock() - self.started)}"]
        if self.trained:
            said.append(f"{self.trained:,} trained tokens")
        if self.loss is not None:
            said.append(f"loss {self.loss:.4f} at the end")
        if LOSS in self.evaluated:
            said.append(f"validation {self.evaluated[LOSS]:.4f}")
        self.say(f"done: {', '.join(said)}")
        self.say(saved or "nothing was saved, because --save is not given")


def total(count: int) -> int:
    """Return the sum of a count over all data-parallel ranks; each of their tensor and pipeline ranks has the same."""
    import torch
    from megatron.core import parallel_state

    counted = torch.tensor([count], dtype=torch.int64, device="cuda")
    torch.distributed.all_reduce(counted, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    return int(counted.item())


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(59.7), duration(200), duration(7322)
    ('1 min', '3 min 20 s', '2 h 2 min')
    """
    whole = round(seconds)
    for unit, name, below, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"
