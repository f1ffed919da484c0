#!/usr/bin/env bash
# Runs the engine and what a user would pick instead on the same work, in turns, and prints a table.
#
#   benches/peers/run.sh [--rounds N] [--runs N] [--peers-only]
#
# The engine's side is the command in BIDSLATE_BENCH, called with `--threads N --precision f32|bf16`; its last line
# must be JSON with `ms_median` and `ms_min`. The peers live in a venv under target/peers; nothing else is installed.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="$root/target/peers"
export BIDSLATE_BENCH="${BIDSLATE_BENCH:-cargo run --release --quiet --example bench_search --}"

if ! cmp --silent "$here/requirements.txt" "$venv/requirements.txt"; then
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi
cd "$root"
exec "$venv/bin/python" "$here/compare.py" --model "$venv/model" "$@"
