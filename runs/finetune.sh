#!/usr/bin/env bash
# From a Hugging Face model to a Hugging Face model in one file: adapters, then all weights, on this CPU.
# The model is made on the spot (tiny, random weights), so that nothing is fetched; with your own, leave step 1 out.
#   bash runs/finetune.sh        everything lands in finetune-out/, which is made anew each time
set -euo pipefail
cd "$(dirname "$0")/.."
out=finetune-out
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
brief() { grep -E --line-buffered '^sft-train|lm loss|rror' | sed -uE 's/.*(iteration +[0-9]+\/).*(lm loss: [^|]*).*/  \1 \2/'; }
rm -rf $out && mkdir $out

step "1. A model folder, as transformers writes one: a small Qwen2 with random weights"
python - $out/model <<'PYTHON'
import sys

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

tokenizer = AutoTokenizer.from_pretrained("tests/data/tokenizer")
torch.manual_seed(0)
config = Qwen2Config(
    vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.1,
    bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
)  # fmt: skip
Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
PYTHON
ls $out/model

step "2. Shards: eight conversations, tokenized with the model's tokenizer"
head -n 8 tests/data/openai_tr.jsonl > $out/conversations.jsonl
show sft-preprocess run $out/conversations.jsonl --output $out/shards --tokenizer $out/model

train=(--shards $out/shards --model $out/model --device cpu --nproc 2)
flags=(--seq-length 256 --global-batch-size 4 --bf16 --weight-decay 0 --lr-decay-style cosine --log-interval 20)

step "3. Adapters (LoRA) of rank 16 on two tensor-parallel processes"
show sft-train "${train[@]}" --epochs 64 --lora-rank 16 \
    -- "${flags[@]}" --lr 1e-2 --tensor-model-parallel-size 2 --save $out/lora 2>&1 | tee $out/lora.log | brief

step "4. Out again: the adapter for PEFT and vLLM, and the same merged into a whole model"
show sft-train export $out/lora --output $out/adapter
show sft-train export $out/lora --output $out/merged --merge

step "5. Does it answer, and does it stop? The base, the base with the adapter, the merged model"
ask=(--shards $out/shards --rows 0-3 --max-tokens 40 --device cpu)
show sft-train chat $out/model "${ask[@]}" | tail -n 1
show sft-train chat $out/model --adapter $out/adapter "${ask[@]}" | tail -n 1
show sft-train chat $out/merged "${ask[@]}" | tail -n 1

step "6. All weights instead, data-parallel with the distributed optimizer"
show sft-train "${train[@]}" --epochs 48 \
    -- "${flags[@]}" --lr 2e-3 --use-distributed-optimizer --save $out/full 2>&1 | tee $out/full.log | brief
show sft-train export $out/full --output $out/tuned
show sft-train chat $out/tuned "${ask[@]}" | tail -n 5

step "Done"
cat <<END
  $out/adapter   the adapter: PeftModel.from_pretrained(model, "$out/adapter"), or vLLM's --lora-modules
  $out/merged    base and adapter in one model folder
  $out/tuned     all weights, trained
Talk to one: sft-train chat $out/tuned --device cpu
END
