"""Everything that depends on Megatron: its versions, flags, forward step, data sets and checkpoints.

    flags (what Megatron is told) ──compat──▶ pretrain() ◀── dataset_provider, forward_step ──▶ loss
                                                 ▲
              cpu_device, adamw_patch, checkpoint_args, attention_backends, hip

The flags of a small call, as the installed Megatron parses them:

    from sft_shards.trainer.mcore import compat, flags
    found = flags.resolve(compat.parser(), config={"lr": 0.001}, config_path="run.yaml", flags=["--num-layers=2"])
    print(found.argv, found.args.calculate_per_token_loss)
"""
