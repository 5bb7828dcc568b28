"""`python -m sft_shards.trainer` is `sft-train`."""

from sft_shards.trainer.cli import main

if __name__ == "__main__":  # torchrun's helpers import the main module again
    main()
