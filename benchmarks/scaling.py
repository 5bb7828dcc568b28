"""Time and peak memory of the batch job as its input grows, as workers are added, and of its steps by themselves.

    python benchmarks/scaling.py FOLDER --tokenizer DIR [--megabytes 16 64 256] [--workers 1 2]

FOLDER holds JSONL of real text (a file or a folder); it is repeated to the sizes asked for, with a number put into
every copy's path only. What it prints is what docs/scaling.md quotes. It measures; it never fails for being slow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, peak MiB of the largest process, and CPU seconds of the first process of a call."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("peak.py")), *arguments], stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(arguments)}")
    peak, cpu = out.strip().splitlines()[-1].split()
    return seconds, float(peak), float(cpu)


def grown(source: Path, target: Path, size: int) -> None:
    """Repeat JSONL until a file has `size` bytes, ending at a line."""
    files = sorted(source.rglob("*.jsonl")) if source.is_dir() else [source]
    lines = [line + b"\n" for path in files for line in path.read_bytes().split(b"\n") if line.strip()]
    written = 0
    with open(target, "wb") as file:
        while written < size:
            for line in lines:
                file.write(line)
                written += len(line)
                if written >= size:
                    break


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="1 must be among them")
    parser.add_argument("--cores", type=int, default=1000, help="of the cluster that the sum at the end is for")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {options.source}; tokenizer {options.tokenizer}\n")
    alone: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| input MB | workers | seconds | CPU seconds | M tokens | peak MiB of a process |")
        print("|---|---|---|---|---|---|")
        for megabytes in options.megabytes:
            path = folder / f"{megabytes}.jsonl"
            grown(options.source, path, megabytes * 10**6)
            for workers in options.workers:
                output = folder / f"out-{megabytes}-{workers}"
                job = [str(path), "--tokenizer", options.tokenizer, "--shard-tokens", str(1 << 20)]
                seconds, peak, cpu = measured(["run", *job, "--output", str(output), "--workers", str(workers)])
                counts = json.loads((output / "manifest.json").read_text("utf-8"))["splits"]
                tokens = sum(split["tokens"] for split in counts.values())
                if workers == 1:
                    alone[megabytes] = cpu
                shown = f"{cpu:.1f}" if workers == 1 else "-"
                print(
                    f"| {megabytes} | {workers} | {seconds:.1f} | {shown} | {tokens / 1e6:.1f} | {peak:.0f} |",
                    flush=True,
                )
        print("\n| step | what | seconds |\n|---|---|---|")
        large = folder / f"{max(options.megabytes)}.jsonl"
        array = folder / "array.json"
        array.write_bytes(b"[" + large.read_bytes().replace(b"\n", b",\n").rstrip(b",\n") + b"]")
        job = ["--tokenizer", options.tokenizer, "--shard-tokens", "100000"]
        size = large.stat().st_size / 1e6
        start, _, _ = measured(["--version"])
        print(f"| start | `sft-preprocess --version` | {start:.2f} |")
        for kind, path in (("JSONL", large), ("JSON array", array)):
            seconds, _, _ = measured(["plan", str(path), *job, "--output", str(folder / f"plan-{kind}")])
            print(f"| plan | {size:.0f} MB of {kind} | {seconds:.2f} |")
        output = folder / "plan-JSONL"
        measured(["task", "--output", str(output)])
        tasks = len(list((output / ".work" / "tasks").iterdir()))
        seconds, _, _ = measured(["finalize", "--output", str(output)])
        print(f"| finalize | {tasks} tasks | {seconds:.2f} |")
        each = seconds / tasks
        for options_ in ([], ["--quick"]):
            seconds, _, _ = measured(["verify", str(output), *options_])
            print(f"| verify {' '.join(options_)} | {tasks} shards | {seconds:.2f} |")
    print()
    print(summary(alone, options.cores, each))


def summary(alone: dict[int, float], cores: int, each: float) -> str:
    """What 1 TB would take on many cores, from CPU seconds by input size (MB) of one worker.

    `each` is what finalize takes for one task, in seconds. The rate is that of the megabytes between the smallest and
    the largest size, so two are needed.
    """
    small, large = min(alone, default=0), max(alone, default=0)
    if small == large:
        return "What 1 TB would take is worked out from two sizes with one worker: give --megabytes two."
    if alone[large] <= alone[small]:
        return f"{large} MB took no longer than {small} MB: too small to tell what 1 TB would take."
    rate = (large - small) / (alone[large] - alone[small])
    first = alone[small] - small / rate
    shards = 10**12 // (4 << 24)
    return (
        f"One core: {rate:.2f} MB per CPU second, after {first:.1f} CPU seconds to start "
        f"(from {small} and {large} MB).\n1 TB on {cores} cores: 10^6 MB / ({rate:.2f} x {cores}) + "
        f"{first:.0f} s = {10**6 / rate / cores + first:.0f} s of tasks; {shards:,} tasks of 64 MiB, "
        f"finalize {shards:,} x {each * 1000:.0f} ms = {shards * each / 60:.0f} min"
    )


if __name__ == "__main__":
    main()
