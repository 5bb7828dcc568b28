"""The same conversations through other preprocessors: which ids each makes, and which of them carry loss.

    python -m benchmarks.peers TOKENIZERS --qwen3 chat_template.jinja --peer primus=CHECKOUT --peer trl ...

Every peer (`projects/`, one file for each) runs its own code, the smallest function of it that gives ids with labels or
a mask, in a process of its own: two of them are called `megatron`, and they want different versions of transformers
(`--python NAME=PROGRAM`). What came out is brought into one form (`pairs`) and printed beside ours, token by token
(`table`). Where a package's `__init__` would load a whole training stack, it is passed over (`modules`); the modules
that do the work are unchanged. docs/masks-peers.md quotes the output.

`python benchmarks/peers …` does the same, from any folder.
"""
