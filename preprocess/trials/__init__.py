"""Looking at inputs before there is a job: nothing is written, and a mistake costs a second.

    files ──check──▶ kind, format, columns, roles, what would be refused ──flags──▶ the options to give
    records + tokenizer ──rendered──▶ records as they would be trained, with their masks
    records + template ──template_trial──▶ what becomes of them under another template

For example:

    from sft_shards.preprocess.trials.check import check
    for file in check(["tests/data/openai_tr.jsonl"]):
        print(file.path, file.format, file.flags)
"""
