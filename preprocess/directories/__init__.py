"""Commands on finished shard directories: show, verify, compare, merge.

    shard directory ──show──▶ one sequence, and what of it carries loss
                    ──verify──▶ findings
    several         ──compare──▶ summaries, differences       ──merge──▶ one shard directory

For example:

    from pathlib import Path
    from sft_shards.preprocess.directories.compare import summary, table
    from sft_shards.preprocess.directories.verify import verify
    print(table([summary(Path("shards"))]))
    print(verify(Path("shards")) or "nothing wrong")
"""
