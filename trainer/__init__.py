"""Shard directories to Megatron's own pretrain()."""
