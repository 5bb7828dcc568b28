"""The batch job: raw records to a shard directory, on CPUs, without torch and without Megatron.

    inputs ──plan──▶ tasks ──engine──▶ finished tasks ──finalize──▶ shard directory
                      │
                      └ sources ─▶ pipeline (read, render, tokenize, truncate) ─▶ writer

For example:

    from pathlib import Path
    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.job import run
    config = JobConfig(inputs=("tests/data/alpaca_en.json",), tokenizer="tests/data/tokenizer")
    manifest = run(config, Path("alpaca-shards"), workers=1)
    print(manifest.splits["train"].trained_tokens, "tokens carry loss")

What a task writes depends on the plan alone, not on the engine, the number of processes, or how often it was killed.
"""
