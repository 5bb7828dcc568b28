"""How fast conversations become token and mask shards, beside what people use today and beside another checkout.

    python -m benchmarks.throughput DATA TOKENIZER                      the contenders, one pinned core each
    python -m benchmarks.throughput DATA TOKENIZER --against DIR        our command here and in another checkout
    python -m benchmarks.throughput DATA TOKENIZER --mode scaling       our command with 1 and 2 processes
    python -m benchmarks.throughput DATA TOKENIZER --mode stages        where our time goes
    python -m benchmarks.throughput DATA TOKENIZER --mode formats       our command on each record format
    python -m benchmarks.throughput DATA TOKENIZER --mode kinds         our command on records with tools, reasoning, …
    python -m benchmarks.throughput DATA TOKENIZER --mode files         our command on such files of DATA
    python -m benchmarks.throughput DATA TOKENIZER --mode templates --templates FOLDER      … under many templates

The corpus (`corpus`) is every conversation of DATA that all contenders can take, shuffled, and cut at `--megabytes` of
rendered text. A contender (`contenders/`, one file for each project) runs in a fresh process, on one core, over text
that it has not seen: twice over one record, then over the corpus, then over one record again. What is reported is the
CPU time of the corpus less the mean of the two around it, children included: imports and loading a tokenizer cost
nobody anything, and a busy machine costs little. The order of the contenders changes from round to round.

Slow contenders get the first quarter of the corpus. Fast ones run over that quarter too, in another process: what the
rest takes beyond it gives the rate of the steady state, at which a large job goes on once it has started.

Ids and masks of each are compared with the reference, `apply_chat_template` of the same messages with a version of the
template in which `{% generation %}` stands around each answer. A contender that needs a checkout
(`--checkout gpt-neox=PATH`) or another environment (`--python trl=PROGRAM`) and has none says so in its row.

`python benchmarks/throughput …` does the same, from any folder.
"""
