#!/usr/bin/env python3
"""PyTorch's times for the operations of the bench `gpu`, on the same sizes: its products are cuBLASLt's or cuBLAS's, its
attention is FlashAttention's or cuDNN's, whichever is faster here.

Reads a JSON list of the bench's names from standard input and writes {"torch", "device", "figures": {name: {"median_ns",
"what"}}} to standard output; names without a peer are left out. Inputs are random bf16, taken in turns from as many
copies as a large cache does not hold; times are the device's own, between two events around many launches, the median
of several such measurements after a warm-up.
"""

import json
import re
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTATED_BYTES = 256 << 20
MOST_COPIES = 64
MEASUREMENTS = 20
MEASUREMENT_MS = 50
HEAD_SIZE = 64


def copies(make, size):
    return [make() for _ in range(min(max(ROTATED_BYTES // size, 2), MOST_COPIES))]


def random(*shape, dtype=torch.bfloat16):
    return (torch.rand(*shape, device="cuda") * 2 - 1).to(dtype)


def median_ns(work, inputs):
    """The median time of `work` on one of the inputs."""

    def measure(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for run in range(runs):
            work(*inputs[run % len(inputs)])
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / runs

    measure(3)
    runs = max(1, int(MEASUREMENT_MS / max(measure(10), 1e-3)))
    return statistics.median(measure(runs) for _ in range(MEASUREMENTS)) * 1e6


def linear(m, n, k):
    inputs = copies(lambda: (random(m, k), random(n, k)), 2 * (m * k + n * k + m * n))
    return {"matmul": median_ns(lambda x, w: F.linear(x, w), inputs)}


def norm_linear(m, n, d):
    weight = torch.ones(d, device="cuda", dtype=torch.bfloat16)
    inputs = copies(lambda: (random(m, d), random(n, d)), 2 * (m * d + n * d + m * n))
    return {"rms_norm, matmul": median_ns(lambda x, w: F.linear(F.rms_norm(x, (d,), weight, 1e-6), w), inputs)}


def swiglu(m, ffn, d):
    weight = torch.ones(d, device="cuda", dtype=torch.bfloat16)

    def work(x, w):
        gate, up = F.linear(F.rms_norm(x, (d,), weight, 1e-6), w).chunk(2, dim=-1)
        return F.silu(gate) * up

    inputs = copies(lambda: (random(m, d), random(2 * ffn, d)), 2 * (m * d + 2 * ffn * d + m * ffn))
    compiled = torch.compile(work)
    return {"rms_norm, matmul, silu": median_ns(work, inputs), "compiled": median_ns(compiled, inputs)}


def best(work, inputs, what):
    """The times of `work` as it stands and compiled."""
    return {what: median_ns(work, inputs), "compiled": median_ns(torch.compile(work), inputs)}


def linear_rotary(m, n, k):
    """Heads of queries and keys, two thirds of the columns, turn by angles of their rows."""
    heads = n // 3 * 2 // HEAD_SIZE
    cosine, sine = (random(m, 1, HEAD_SIZE // 2, dtype=torch.float32) for _ in range(2))

    def work(x, w):
        turned, values = F.linear(x, w).split((heads * HEAD_SIZE, n - heads * HEAD_SIZE), dim=-1)
        low, high = turned.unflatten(-1, (heads, HEAD_SIZE)).chunk(2, dim=-1)
        turned = torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1).bfloat16()
        return torch.cat((turned.flatten(-2), values), dim=-1)

    inputs = copies(lambda: (random(m, k), random(n, k)), 2 * (m * k + n * k + m * n))
    return best(work, inputs, "matmul, rotary")


def linear_swiglu(m, ffn, k):
    def work(x, w):
        gate, up = F.linear(x, w).chunk(2, dim=-1)
        return F.silu(gate) * up

    inputs = copies(lambda: (random(m, k), random(2 * ffn, k)), 2 * (m * k + 2 * ffn * k + m * ffn))
    return best(work, inputs, "matmul, silu")


def linear_norm(m, n, k):
    weight = torch.ones(n, device="cuda")

    def work(x, a, w):
        x += F.linear(a, w)
        return F.rms_norm(x, (n,), weight, 1e-6).bfloat16()

    def make():
        return random(m, n, dtype=torch.float32), random(m, k), random(n, k)

    inputs = copies(make, 2 * (m * k + n * k + m * n) + 8 * m * n)
    return best(work, inputs, "matmul, addition, rms_norm")


def attend(requests, queries, keys, heads):
    size = 2 * requests * heads * HEAD_SIZE * (2 * queries + 2 * keys)
    inputs = copies(lambda: tuple(random(requests, heads, n, HEAD_SIZE) for n in (queries, keys, keys)), size)
    times = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(backend):
            try:
                times[backend.name] = median_ns(F.scaled_dot_product_attention, inputs)
            except RuntimeError as error:
                print(f"{backend.name}: {error}", file=sys.stderr)
    return times


def quantize(rows, layers, codes, width):
    def work(y, books):
        residual, found = y, []
        for book in books:
            distance = torch.addmm((book * book).sum(1), residual, book.T, alpha=-2)
            code = distance.argmin(1)
            residual = residual - book[code]
            found.append(code)
        return found

    def make():
        return random(rows, width, dtype=torch.float32), random(layers, codes, width, dtype=torch.float32)

    inputs = copies(make, 4 * rows * width)
    return {"addmm, argmin": median_ns(work, inputs), "compiled": median_ns(torch.compile(work), inputs)}


PEERS = {
    r"linear(?:_hopper)? (\d+)x(\d+)x(\d+)/gpu": linear,
    r"norm_linear (\d+)x(\d+)x(\d+)/gpu": norm_linear,
    r"swiglu (\d+)x(\d+)x(\d+)/gpu": swiglu,
    r"linear_rotary_hopper (\d+)x(\d+)x(\d+)/gpu": linear_rotary,
    r"linear_swiglu_hopper (\d+)x(\d+)x(\d+)/gpu": linear_swiglu,
    r"linear_norm(?:_hopper)? (\d+)x(\d+)x(\d+)/gpu": linear_norm,
    r"attention(?:_hopper)? (\d+)x(\d+), (\d+) heads/gpu": lambda requests, n, heads: attend(requests, n, n, heads),
    r"beam_attention(?:_hopper)? (\d+)x(\d+) over (\d+), (\d+) heads/gpu": attend,
    r"quantize (\d+)x(\d+)x(\d+)x(\d+)/gpu": quantize,
}


def main():
    figures = {}
    for name in json.load(sys.stdin):
        for pattern, peer in PEERS.items():
            match = re.fullmatch(pattern, name)
            if match:
                times = peer(*map(int, match.groups()))
                if times:
                    what = min(times, key=times.get)
                    figures[name] = {"median_ns": times[what], "what": what}
                torch.cuda.empty_cache()
    json.dump({"torch": torch.__version__, "device": torch.cuda.get_device_name(), "figures": figures}, sys.stdout)


if __name__ == "__main__":
    main()
