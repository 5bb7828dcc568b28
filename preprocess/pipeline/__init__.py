"""Batches of raw records to batches of token ids with loss masks, in four stages.

    RawBatch ──read──▶ ConversationBatch ──render──▶ RenderedBatch ──tokenize──▶ TokenizedBatch ──truncate──▶ Batch

In a few lines:

    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.pipeline.pipeline import Pipeline
    from sft_shards.preprocess.sources import RawBatch
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer
    config = JobConfig(inputs=("records.jsonl",), tokenizer="tests/data/tokenizer")
    pipeline = Pipeline(config, "tokenizer", Tokenizer(config.tokenizer))
    records = [{"instruction": "Name a colour.", "output": "Blue."}, {"instruction": "Name another."}]
    batch = pipeline.batch(RawBatch(0, records), "alpaca")
    print(batch.lengths.tolist(), batch.trained.tolist(), [reject.reason for reject in batch.rejects])

Each stage has a batch implementation and a reference implementation with the same signature. What the batch
implementation of a stage does not support goes to the reference implementation of that stage, and rejoins at once.
`ReferencePipeline` is the reference of every stage in a row; it defines what is right.
"""
