#!/usr/bin/env bash
# The whole road in one file, on this CPU: chat data to shards, shards to Megatron's own pretrain(), and a chat with the result.
# Started by `make demo`; runs again from the start each time, in a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo-out
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
losses() { grep -E '^sft-train|lm loss|checkpoint|rror' | sed -E 's/.*(iteration +[0-9]+\/).*(lm loss: [^|]*).*/  \1 \2/'; }

step "1. Tokenize once: Alpaca, ChatML and OpenAI messages become one shard directory"
show sft-preprocess run tests/data/alpaca_en.json tests/data/chatml_zh.jsonl tests/data/openai_tr.jsonl \
    --output $out/shards --tokenizer tests/data/tokenizer --max-length 512 --valid-fraction 0.1 --overwrite

step "2. Look at what carries loss (green, or between ⟦ ⟧): what the assistant says, and the token that ends it"
show sft-preprocess inspect $out/shards --row 3
show sft-preprocess inspect $out/shards --row 420

step "3. Check every byte, pair, id and count"
show sft-preprocess verify $out/shards

step "4. Train a tiny GPT on the shards, through Megatron's pretrain()"
rm -rf $out/checkpoint $out/model
cat > $out/config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "num_hidden_layers": 2,
 "hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 4096,
 "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000, "tie_word_embeddings": false}
JSON
show sft-train --shards $out/shards --device cpu --config configs/demo-cpu.yaml --hf-config $out/config.json \
    -- --save $out/checkpoint 2>&1 |
    tee $out/train.log | losses

step "5. Out of Megatron: a Hugging Face model folder with the tokenizer, the template and its stop tokens"
show sft-train export $out/checkpoint --output $out/model

step "6. Start again from that folder, as from any Hugging Face model: eight conversations, learnt by heart"
rm -rf $out/tuning $out/tuned
head -n 8 tests/data/openai_tr.jsonl > $out/eight.jsonl
show sft-preprocess run $out/eight.jsonl --output $out/answers --tokenizer $out/model --overwrite 2>&1 | tail -n 2
show sft-train --shards $out/answers --model $out/model --device cpu --epochs 80 \
    -- --seq-length 256 --micro-batch-size 2 --global-batch-size 4 --lr 5e-3 --min-lr 1e-4 --lr-decay-style cosine \
    --save $out/tuning 2>&1 | tee $out/tuning.log | losses
show sft-train export $out/tuning --output $out/tuned

step "7. Ask it: its answers beside the references, and whether each ended by itself"
show sft-train chat $out/tuned --device cpu --max-tokens 60 --shards $out/answers --rows 0-2

step "Done"
cat <<END
  $out/shards       the shard directory: use it again with any sequence length, seed or model with this tokenizer
  $out/checkpoint   the trained model, in Megatron's format
  $out/model        the same as a Hugging Face folder
  $out/tuned        that model after eight conversations; talk to it: sft-train chat $out/tuned
  $out/train.log    all that Megatron said

Next, with your own data and tokenizer:
  . .venv/bin/activate
  sft-preprocess run YOUR.jsonl --output shards --tokenizer YOUR_TOKENIZER_FOLDER --valid-fraction 0.01
  sft-preprocess inspect shards
  sft-train --shards shards --device cpu --config configs/demo-cpu.yaml

From a Hugging Face model to a Hugging Face model, with adapters and with all weights: bash runs/finetune.sh
END
