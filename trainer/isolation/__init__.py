"""Keep conversations that share a sample from attending to each other.

    trial (each node's GPU) ──consensus──▶ what failed ──choose──▶ te, flash, torch or sdpa ──kernels──▶ attention
    position_ids ──segments──▶ where each conversation begins ──context_shares──▶ what each context rank computes

Two conversations of two and one positions in one row, attended to by torch:

    import torch
    from sft_shards.trainer.isolation.kernels import Options, sdpa
    from sft_shards.trainer.isolation.segments import Segments
    row = torch.randn(3, 2, 4)                                          # positions, heads, channels
    segments = Segments(bounds=torch.tensor([0, 2, 3]), lengths=(2, 1))
    print(sdpa(row, row, row, segments, Options(scale=0.5)).shape)      # torch.Size([3, 2, 4])
"""
