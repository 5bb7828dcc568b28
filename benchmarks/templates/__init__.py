"""Published chat templates against an independent oracle: which conversations are exact, refused or wrong?

    python -m benchmarks.templates.collect CHECKOUT... --output FOLDER     collect templates (none are committed)
    python -m benchmarks.templates FOLDER --tokenizer DIR --sentencepiece DIR --results DIR

`conversations` makes the conversations, `tokenizers` a tokenizer with a template's control tokens. `pipelines` is all
that knows the product. `oracle` judges with transformers and tokenizers alone: `rendering` renders, `regions` finds
where a message's words stand, `encoding` gives ids. `runner` runs templates in processes; `tables` prints.
"""
