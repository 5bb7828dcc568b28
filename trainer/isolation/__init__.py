"""Keep conversations that share a sample from attending to each other.

    trial (each node's GPU) ──consensus──▶ one answer ──choose──▶ thd, mask or single ──attention──▶ mask or offsets

Two conversations of two and one positions in one sample, as Megatron's attention is told (True: not seen):

    import torch
    from sft_shards.trainer.isolation.attention import block_mask
    print(block_mask(torch.tensor([[0, 1, 0]]))[0, 0])
"""
