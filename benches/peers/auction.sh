#!/usr/bin/env bash
# Runs stand-alone auctions by the engine and by NumPy on the same numbers, in turns; benches/peers/auction.py says how.
#
#   benches/peers/auction.sh [--auctions N] [--rounds N]
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="$root/target/peers-numpy"
export BIDSLATE_BENCH="${BIDSLATE_BENCH:-$root/target/release/examples/bench_auctions}"

if [[ ! -x "$venv/bin/python" ]]; then
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        "$(grep '^numpy==' "$here/requirements.txt")" >&2
fi
cd "$root"
cargo build --release --quiet --example bench_auctions
exec "$venv/bin/python" "$here/auction.py" "$@"
