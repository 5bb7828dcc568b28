#!/usr/bin/env bash
# Train under Megatron-LM source checkouts, as containers carry them: tests/versions/run_checkout.sh CHECKOUT...
# Uses the python on PATH (Python 3.12, with '.[train,dev]'); older checkouts also import
#   pip install six flask-restful einops sentencepiece tiktoken
set -uo pipefail
support=$(cd "$(dirname "$0")/../support" && pwd)
test $# -gt 0 || { echo "usage: $0 CHECKOUT... (folders that hold megatron/)" >&2; exit 2; }
failed=0
for checkout in "$@"; do
    test -d "$checkout/megatron/training" || { echo "$checkout: no megatron/training in it" >&2; exit 2; }
    PYTHONPATH="$(cd "$checkout" && pwd)${PYTHONPATH:+:$PYTHONPATH}" python -W ignore "$support/megatron_road.py" || failed=1
done
exit $failed
