"""How long data-parallel ranks wait for each other, in the mixture's order and dealt by cost; simulated.

    python benchmarks/balance.py [SHARDS] [--positions 8192 32768] [--ranks 8 64] [--micro-batches 4 8] [--stages 4]

Lengths are those of a shard directory, or log-normal (median 900, sigma 1.4). A rank's time is the sum of the costs of
its samples, for the shape of Llama 3.1 8B. With --stages it also prints how long a step of a 1F1B pipeline takes when
the micro-batches of a rank come in falling, rising and random order, as multiples of the time without any bubble.
docs/packing.md quotes the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.packing import pack
from sft_shards.trainer.data.balance import CostModel, deal, waiting

HIDDEN, INNER, GROUPS, CHANNELS = 4096, 14336, 8, 128
MODEL = CostModel(
    linear=2 * HIDDEN * (HIDDEN + GROUPS * CHANNELS) + 3 * HIDDEN * INNER,
    quadratic=2 * HIDDEN,
)


def costs_of_packs(lengths: NDArray[np.int64], positions: int) -> NDArray[np.int64]:
    """Return int64[packs]: the cost of each pack of conversations of these lengths."""
    cut = np.minimum(lengths, positions)
    packs = pack(cut, positions, 1234)
    squares = np.add.reduceat(cut[packs.items] ** 2, packs.bounds[:-1].astype(np.int64))
    return MODEL.of(positions, squares)


def pipeline(times: Sequence[float], stages: int) -> float:
    """Return how long a 1F1B pipeline takes; a micro-batch takes its time forwards and twice that backwards.

    Every stage does its forward and backward steps in 1F1B's order, each as soon as its neighbour has sent what it
    needs.
    """
    count = len(times)
    forward = np.zeros((stages, count))
    backward = np.zeros((stages, count))
    order = []
    for stage in range(stages):
        warm = min(count, stages - stage - 1)
        steps = [("f", at) for at in range(warm)]
        for at in range(count - warm):
            steps += [("f", warm + at), ("b", at)]
        order.append(steps + [("b", at) for at in range(count - warm, count)])
    place, clock = [0] * stages, [0.0] * stages
    done: set[tuple[int, str, int]] = set()
    while any(place[stage] < len(order[stage]) for stage in range(stages)):
        for stage in range(stages):
            while place[stage] < len(order[stage]):
                kind, at = order[stage][place[stage]]
                if kind == "f":
                    before = (stage - 1, "f", at) if stage else None
                else:
                    before = (stage + 1, "b", at) if stage < stages - 1 else (stage, "f", at)
                if before is not None and before not in done:
                    break
                ready = 0.0 if before is None else (forward if before[1] == "f" else backward)[before[0], at]
                clock[stage] = max(clock[stage], float(ready)) + times[at] * (1 if kind == "f" else 2)
                (forward if kind == "f" else backward)[stage, at] = clock[stage]
                done.add((stage, kind, at))
                place[stage] += 1
    return max(clock) / (3 * sum(times))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?")
    parser.add_argument("--positions", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--stages", type=int)
    options = parser.parse_args()
    if options.shards:
        lengths = ShardDirectory(options.shards).split("train").lengths().astype(np.int64) - 1
    else:
        lengths = np.random.default_rng(0).lognormal(np.log(900), 1.4, 400_000).astype(np.int64) + 1
    print("| positions | ranks | micro-batches a rank | waiting, not dealt | dealt |\n|---|---|---|---|---|")
    for positions in options.positions:
        costs = costs_of_packs(lengths, positions)
        for ranks in options.ranks:
            for each in options.micro_batches:
                batches = costs[: len(costs) // (ranks * each) * ranks * each].reshape(-1, ranks * each)[:200]
                plain = np.mean([waiting(batch, ranks=ranks, rows=1) for batch in batches])
                dealt = np.mean(
                    [waiting(batch[deal(batch, ranks=ranks, rows=1)], ranks=ranks, rows=1) for batch in batches]
                )
                print(f"| {positions:,} | {ranks} | {each} | {plain:.2%} | {dealt:.3%} |")
    if options.stages:
        costs = costs_of_packs(lengths, options.positions[-1])
        print(f"\n1F1B with {options.stages} stages, {options.positions[-1]:,} positions: time / time without bubbles")
        for each in options.micro_batches:
            batches = costs[: len(costs) // each * each].reshape(-1, each)[:100]
            for name, arrange in (
                ("falling", lambda b: np.sort(b)[::-1]),
                ("rising", np.sort),
                ("random", lambda b: b),
            ):
                times = np.mean([pipeline(arrange(batch).tolist(), options.stages) for batch in batches])
                print(f"  {each} micro-batches, {name}: {times:.3f}")


if __name__ == "__main__":
    main()
