"""All that knows Megatron: its versions, flags, forward step, data sets and checkpoints."""
