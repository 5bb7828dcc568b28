"""Train on shard directories through Megatron's own `pretrain()`.

    cli ──▶ Job ──launch──▶ torchrun ──▶ worker ──resolve──▶ Decision ──▶ pretrain()
             └─▶ slurm, dry_run                                              ▲
                                data ──▶ data sets, model, forward step ─────┘

The loss sees the tokens that the stored mask trains, and nothing else. What `pretrain()` reads is a data set that needs
neither torch nor Megatron:

    import tempfile
    from fractions import Fraction
    from pathlib import Path
    from sft_shards.trainer.data.cache import Cache
    from sft_shards.trainer.data.mixture import Mixture, Source
    from sft_shards.trainer.data.pack_plan import make_plan
    from sft_shards.trainer.data.samples import TrainSamples
    from sft_shards.trainer.data.shards import Reader, open_shards

    (directory,) = open_shards(["shards"])      # what sft-preprocess wrote
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(directory.split("train"), seq_length=512, overlong="truncate", batching="packed",
                         every_token=False, seed=1, cache=Cache(Path(folder)))
        mixture = Mixture([Source(name="mine", weight=Fraction(1), plan=plan)], seed=1)
        reader = Reader(plan, seq_length=512, pad_id=0, every_token=False)
        samples = TrainSamples(mixture, [reader], count=1000)
        print(samples[0]["labels"], samples[0]["loss_mask"])

`data` makes samples, `isolation` keeps packed conversations apart, `model` imports and exports weights, `mcore` holds
all that depends on Megatron, `launch` starts workers, and `doctor` looks at a machine before anything is started.
Nothing here reads a raw record or a chat template.
"""
