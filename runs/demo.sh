#!/usr/bin/env bash
# The whole road in one file: real chat data to shards, shards to Megatron's own pretrain(), on this CPU.
# Started by `make demo`; runs again from the start each time, in a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo-out
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

step "1. Tokenize once: Alpaca, ChatML and OpenAI messages become one shard directory"
show sft-preprocess run tests/data/alpaca_en.json tests/data/chatml_zh.jsonl tests/data/openai_tr.jsonl \
    --output $out/shards --tokenizer tests/data/tokenizer --max-length 512 --valid-fraction 0.1 --overwrite

step "2. Look at what carries loss (green, or between ⟦ ⟧): what the assistant says, and the token that ends it"
show sft-preprocess inspect $out/shards --row 3
show sft-preprocess inspect $out/shards --row 420

step "3. Check every byte, pair, id and count"
show sft-preprocess verify $out/shards

step "4. Train a tiny GPT on the shards, through Megatron's pretrain()"
rm -rf $out/checkpoint
show sft-train --shards $out/shards --device cpu --config configs/demo-cpu.yaml -- --save $out/checkpoint 2>&1 |
    tee $out/train.log | grep -E '^sft-train|lm loss|checkpoint|^\$|rror' | sed -E 's/.*(iteration +[0-9]+\/).*(lm loss: [^|]*).*/  \1 \2/'

step "Done"
cat <<END
  $out/shards       the shard directory: use it again with any sequence length, seed or model with this tokenizer
  $out/checkpoint   the trained model, in Megatron's format
  $out/train.log    all that Megatron said

Next, with your own data and tokenizer:
  . .venv/bin/activate
  sft-preprocess run YOUR.jsonl --output shards --tokenizer YOUR_TOKENIZER_FOLDER --valid-fraction 0.01
  sft-preprocess inspect shards
  sft-train --shards shards --device cpu --config configs/demo-cpu.yaml
END
