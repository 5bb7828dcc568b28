"""Turn shard directories into training samples.

    shards ──selection──▶ rows ──packing──▶ pack plan ──mixture──▶ order of packs ──samples, shards──▶ Sample
           (both of `formats.shards`, and kept in `cache`)

Only row numbers are sorted and stored; tokens stay in the memory-mapped shards until a sample is read. Conversations of
these lengths share packs of 1,000 positions:

    import numpy as np
    from sft_shards.formats.shards.packing import pack
    packs = pack(np.array([600, 300, 90, 10, 500]), 1000, "seed")
    print(packs.items, packs.bounds)            # item numbers pack after pack, and the offset of each pack
"""
