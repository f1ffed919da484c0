"""Stand-alone auctions of 64 bidders for 10 slots: the engine beside NumPy on the same numbers, in turns.

    benches/peers/auction.sh [--auctions N] [--rounds N]

NumPy takes all auctions as arrays, in chunks that stay in the cache; then a few of them one at a time, as they come to a
server. It must charge the engine's winners the engine's integers, or the script fails.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BIDDERS, SLOTS = 64, 10
CHUNK = 2048
FEW = 2048
ONE_BY_ONE = "numpy, one at a time"
LIFT = 1.0 + 2.0**-44
INDEX = np.int64(BIDDERS - 1)  # The bits that hold a bidder's index.


def splitmix64(x: np.ndarray) -> np.ndarray:
    z = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


HASHES = splitmix64(np.arange(BIDDERS))


def ranks(scores: np.ndarray) -> np.ndarray:
    """The best bidders, one more than there are slots, best first.

    The low bits of a positive float are replaced by its place, so that one partition of integers carries both. Where that
    loses the order of two scores, the row is sorted by scores and hashes.
    """
    room = SLOTS + 1
    keys = (scores.view(np.int64) & ~INDEX) | np.arange(BIDDERS)
    keys.partition(BIDDERS - room - 1, axis=1)
    boundary, keys = keys[:, -room - 1], keys[:, -room:]
    keys.sort(axis=1)
    keys = keys[:, ::-1]
    best = keys & INDEX
    cut = keys & ~INDEX
    close = (cut[:, 1:] == cut[:, :-1]).any(axis=1) | (cut[:, -1] == boundary & ~INDEX)
    for row in np.flatnonzero(close):
        best[row] = np.lexsort((HASHES, scores[row]))[::-1][:room]
    return best


def run(rule: str, bids, reserves, quality, effects, chunk=CHUNK):
    """Winners and payments [auctions, slots]; -1 and 0 where a slot is not sold."""
    winners = np.empty((len(bids), SLOTS), np.int64)
    payments = np.zeros((len(bids), SLOTS), np.uint64)
    drops = effects - np.append(effects[1:], 0.0)
    for start in range(0, len(bids), chunk):
        own = slice(start, start + chunk)
        bid, reserve, weight = bids[own], reserves[own], quality[own]
        scores = np.where((bid >= reserve) & (weight > 0.0), bid * weight, -1.0)
        best = ranks(scores)
        scores = np.take_along_axis(scores, best, axis=1)
        sold = scores[:, :SLOTS] >= 0.0
        following = np.maximum(scores[:, 1:], 0.0)
        best = best[:, :SLOTS]
        bid, reserve, weight = (np.take_along_axis(x, best, axis=1) for x in (bid, reserve, weight))
        least_reserve = reserve.astype(np.float64)
        if rule == "gsp":
            price = np.maximum(following / weight, least_reserve)
        else:
            price = np.zeros_like(weight)
            for rank in range(SLOTS):
                above = slice(0, rank + 1)
                least = np.maximum(following[:, rank : rank + 1] / weight[:, above], least_reserve[:, above])
                price[:, above] += drops[rank] * least
            price /= effects
        paid = np.minimum(np.maximum(np.floor(price * LIFT).astype(np.uint64), reserve), bid)
        winners[own] = np.where(sold, best, -1)
        payments[own] = np.where(sold, paid, 0)
    return winners, payments


def draw(auctions: int):
    random = np.random.default_rng()
    shape = (auctions, BIDDERS)
    bids = random.integers(10_000, 10_000_000, shape, dtype=np.uint64)
    # Some tie: the same bid at the same quality.
    quality = random.uniform(0.001, 0.2, shape)
    ties = random.integers(0, auctions, auctions // 100)
    bids[ties, 1], quality[ties, 1] = bids[ties, 0], quality[ties, 0]
    reserves = random.integers(0, 1_000_000, shape, dtype=np.uint64)
    return bids, reserves, quality, 1.0 / np.arange(1.0, SLOTS + 1.0)


def engine(data: Path, rule: str, threads: int) -> dict:
    command = [*shlex.split(os.environ["BIDSLATE_BENCH"]), "--data", str(data), "--rule", rule, "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--auctions", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load is {load:.1f} before anything runs; the figures will say little", file=sys.stderr)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        arrays = draw(arguments.auctions)
        for name, array in zip(("bids", "reserves", "quality", "effects"), arrays, strict=True):
            array.tofile(data / name)
        for rule in ("gsp", "vcg"):
            compare(rule, arrays, data, arguments.rounds)


def compare(rule: str, arrays, data: Path, rounds: int) -> None:
    auctions = len(arrays[0])
    rates = {"numpy": [], ONE_BY_ONE: [], "bidslate x1": [], "bidslate x2": []}
    for _ in range(rounds):
        start = time.perf_counter()
        winners, payments = run(rule, *arrays)
        rates["numpy"].append(auctions / (time.perf_counter() - start))
        *bidders, effects = arrays
        start = time.perf_counter()
        run(rule, *(array[:FEW] for array in bidders), effects, chunk=1)
        rates[ONE_BY_ONE].append(min(FEW, auctions) / (time.perf_counter() - start))
        for threads in (1, 2):
            rates[f"bidslate x{threads}"].append(auctions / engine(data, rule, threads)["seconds_median"])
    found = np.fromfile(data / "winners", np.uint32).reshape(winners.shape)
    if not np.array_equal(winners.astype(np.uint32), found):
        sys.exit(f"{rule}: the winners differ")
    if not np.array_equal(payments, np.fromfile(data / "payments", np.uint64).reshape(payments.shape)):
        sys.exit(f"{rule}: the payments differ")
    peer = statistics.median(rates["numpy"])
    for name, turns in rates.items():
        median = statistics.median(turns)
        all_turns = " ".join(f"{rate / 1e6:.3f}" for rate in turns)
        print(f"{rule} {name}: {median / 1e6:.3f} million auctions/s ({all_turns}), {median / peer:.1f} x numpy")


if __name__ == "__main__":
    main()
