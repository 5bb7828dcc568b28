"""A job in steps, and what each step keeps on disk.

    plan ──▶ DIR/.work/plan.json ──task──▶ DIR/.work/tasks/NNNNN ──finalize──▶ DIR/manifest.json

For example:

    from pathlib import Path
    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.job import Job, finalize_only, run_tasks
    output = Path("stepwise")
    config = JobConfig(inputs=("tests/data/alpaca_en.json",), tokenizer="tests/data/tokenizer", shard_tokens=20_000)
    plan = Job(config=config, output=output).plan()
    run_tasks(output, lambda plan: [0], workers=1)
    run_tasks(output, lambda plan: [task.number for task in plan.tasks], workers=1)  # finished ones are skipped
    print(len(plan.tasks), "tasks,", finalize_only(output).counts.written, "records written")

`output` says what state a folder is in, `rerun` and `reuse` what of an earlier job is taken over, `replacement` how a
complete directory is overwritten.
"""
