"""Runs engine and peers in turns (A B A B, so that a slow minute hits all of them) and prints a Markdown table."""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import work

HERE = Path(__file__).parent
THREADS = (1, 2)
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def contestants(arguments: argparse.Namespace) -> list[list[str]]:
    """A command each, to which the threads are added."""
    ct2 = [sys.executable, str(HERE / "ct2.py"), "--model", str(arguments.model), "--runs", str(arguments.runs)]
    ort = [sys.executable, str(HERE / "ort.py"), "--runs", str(arguments.runs)]
    peers = [[*ct2, "--compute", "float32"], ort, [*ct2, "--compute", "int8"]]
    if arguments.peers_only:
        return peers
    bench = shlex.split(os.environ["BIDSLATE_BENCH"])
    # Each of the engine's types stands before the peers that it is likeliest to be compared with.
    return [[*bench, "--precision", "f32"], *peers[:2], [*bench, "--precision", "bf16"], peers[2]]


def run(command: list[str], threads: int) -> dict:
    """Runs one contestant; its result, under a name and type."""
    command = [*command, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        sys.exit(f"{shlex.join(command)} failed with exit code {done.returncode}")
    result = json.loads(lines[-1])
    if "--precision" in command:
        result |= {"name": "bidslate", "type": command[command.index("--precision") + 1], "threads": threads}
    print(json.dumps(result), flush=True)
    return result


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].replace("\t", "").splitlines() if ":" in line)
    flags = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    model = fields.get("model name", "unknown").strip()
    family = f"family {fields.get('cpu family', '?').strip()} model {fields.get('model', '?').strip()}"
    cores = len(os.sched_getaffinity(0))
    return f"{model} ({family}), {cores} cores, {' '.join(flags)}, Linux {os.uname().release}"


def table(results: list[dict]) -> str:
    """A row per threads and contestant: medians over the rounds, and the engine's median over the contestant's."""
    rows: dict[tuple[int, str, str], list[dict]] = {}
    for result in results:
        rows.setdefault((result["threads"], result["name"], result["type"]), []).append(result)
    medians = {key: statistics.median(r["ms_median"] for r in runs) for key, runs in rows.items()}
    out = [
        "| threads | | type | median ms | best ms | medians of the rounds | bidslate f32 / it | bidslate bf16 / it |",
        "| --: | --- | --- | --: | --: | --- | --: | --: |",
    ]
    for key in sorted(rows, key=lambda key: (key[0], key[1] != "bidslate", key)):
        threads, name, kind = key
        engine = [medians.get((threads, "bidslate", precision)) for precision in ("f32", "bf16")]
        ratios = ["-" if ms is None or name == "bidslate" else f"{ms / medians[key]:.2f}" for ms in engine]
        rounds = " ".join(f"{r['ms_median']:.0f}" for r in rows[key])
        best = min(r["ms_min"] for r in rows[key])
        cells = [str(threads), name, kind, f"{medians[key]:.0f}", f"{best:.0f}", rounds, *ratios]
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="where CTranslate2's model is, or is to be built")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every contestant")
    parser.add_argument("--runs", type=int, default=4, help="runs of a peer in a turn, after one warm-up")
    parser.add_argument("--peers-only", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load is {load:.1f} before anything runs; the figures will say little", file=sys.stderr)
    results = [
        run(command, threads)
        for _ in range(arguments.rounds)
        for threads in THREADS
        for command in contestants(arguments)
    ]
    print(f"\n{machine()}; load before: {load:.2f}; {work.gflop():.0f} GFLOP a run. A ratio below 1: bidslate is faster.\n")
    print(table(results))


if __name__ == "__main__":
    main()
