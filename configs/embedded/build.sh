#!/usr/bin/env bash
# Rebuilds the shipped models, two at a time on one thread each: make embedded
set -euo pipefail
bin=${BIN:-.venv/bin}
runs=$(mktemp -d)
trap 'wait; rm -rf "$runs"' EXIT
export OMP_NUM_THREADS=1 WANDB_MODE=disabled

build() {  # CONFIG NAME
  "$bin/lit-pref" fit --config "configs/embedded/$1.yaml" --runs_folder "$runs" --run_name run
  "$bin/lit-pref" export --checkpoint "$runs/$1/run/checkpoints/last.ckpt" --output "$runs/models/$2"
  cp "$runs/models/$2/model.safetensors" "lit_pref/embedded/$2/model.safetensors"
}

"$bin/python" configs/embedded/tokenizer.py lit_pref/embedded/tokenizer
build coder coder &
first=$!
build coder_weak coder-weak
build coder_strong coder-strong
build base base
wait "$first"
