"""Published chat templates against an independent oracle: which conversations are exact, refused or wrong?

    python -m benchmarks.templates.collect CHECKOUT... --output FOLDER     collect templates (none are committed)
    python -m benchmarks.templates FOLDER --tokenizer DIR                  run them, print a table by family

`conversations` makes the conversations, `tokenizers` a tokenizer with a template's control tokens, `oracle` judges
with transformers and tokenizers alone.
"""
