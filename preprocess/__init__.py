"""The batch job: sources, a plan of fixed tasks, tokens and masks, committed shards, a manifest."""
