"""Shard directories to Megatron's own `pretrain()`, with a loss that sees trained tokens and nothing else.

    cli ─▶ config ─▶ Job ─▶ launch ─▶ torchrun ─▶ worker ─▶ decision ─▶ megatron.pretrain()
                      └─▶ slurm, dry_run               flags, checks ─┘    │
                                     data ─▶ provider, model, forward step ┘

In five lines, with no Megatron in sight (what `pretrain()` is given is this data set):

    from sft_shards.formats.shards import ShardDirectory
    from sft_shards.trainer.data.samples import TrainSamples, select
    train = select([ShardDirectory("shards").split("train")], seq_length=512, overlong="truncate")
    samples = TrainSamples(train, seq_length=512, pad_id=0, seed=1234, count=1000)
    print(samples[0]["labels"], samples[0]["loss_mask"])

`megatron` knows Megatron's versions, `amd` what AMD GPUs want, `cpu` how to do without a GPU; `doctor` looks at a
machine before anything is started. Nothing here reads a raw record or a chat template.
"""
