#!/usr/bin/env bash
# Install the project in folder $1 into this Python, and replace nothing that was built for the GPU.
#
#     docker/install.sh /opt/sft-shards hip
#
# The index has packages of the same names, built for other GPUs. What is installed of them is written down as
# constraints, so that pip gives up where it would have to replace one; afterwards it is compared. With $2 = hip, torch
# must be ROCm's as well. `pip list` and not `pip freeze`, which names local builds by the file they came from.
set -euo pipefail

project=$1
built_for=${2:-}
kept='numpy|apex|aiter|(torch|triton|pytorch|transformer[-_]engine|flash[-_]attn|megatron|grouped[-_]gemm|amd|rocm|hip)[^=]*'

installed() {
    python -m pip list --format=freeze --disable-pip-version-check | { grep -iE "^($kept)==" || true; } | sort
}

before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
installed >"$before"
grep -q '^torch==' "$before" || { echo "install.sh: this Python has no torch; build on an image that brings its own" >&2; exit 1; }
echo "install.sh: kept as they are:" && cat "$before"

python -m pip install --no-cache-dir --disable-pip-version-check --constraint "$before" "${project}[train]"
rm -rf "$project/build" "$project"/*.egg-info

installed >"$after"
diff "$before" "$after" || { echo "install.sh: the packages above were replaced or added" >&2; exit 1; }
if [ "$built_for" = hip ]; then
    python -c 'import sys, torch; sys.exit(not torch.version.hip and "install.sh: this torch is not built for ROCm")'
fi
