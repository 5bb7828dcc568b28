"""A look at a trained model: ask it, and see whether it stops by itself.

    model folder (+ adapter) ─▶ transformers ─▶ answer, as it is generated ─▶ beside the references of a shard directory

It runs transformers and nothing of Megatron, on the CPU or a GPU, with the folder's own tokenizer, chat template and
stop tokens: what will serve the model uses the same ones. One conversation at a time, so it is no benchmark.

The questions that a row of a shard directory asks, one for each trained turn:

    from sft_shards.formats.shards import ShardDirectory
    from sft_shards.trainer.chat.references import questions
    ids, loss_mask = ShardDirectory("shards").split("train")[0]
    for question in questions(0, ids, loss_mask, "shards"):
        print(question.turn, "of", question.turns, ":", len(question.prompt), "tokens, then", len(question.reference))
"""
