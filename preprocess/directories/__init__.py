"""Commands on finished shard directories: show, rejects, statistics, report, verify, compare, merge.

    shard directory ──rows──▶ row numbers ──show──▶ sequences and packs, and what of them carries loss
                    ──statistics──▶ sources, lengths, packing ──stats──▶ text
                    ──rejects──▶ records that were left out, out of their files
                    ──report──▶ a page of HTML, which begins with what stands out
                    ──verify──▶ findings
    several         ──compare──▶ summaries, differences       ──merge──▶ one shard directory

For example:

    from pathlib import Path
    from sft_shards.preprocess.directories.compare import summary, table
    from sft_shards.preprocess.directories.verify import verify
    print(table([summary(Path("shards"))]))
    print(verify(Path("shards")) or "nothing wrong")
"""
