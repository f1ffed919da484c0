"""What has run on GPUs, as docs/gpus.md tells it."""

from collections.abc import Iterator

from .figures import Json, per_second
from .loads import told

# At half of the capacity.
STEADY = "p99 within 1.3 times p50"
# What is aimed at on an H100: what, the aim, and the benchmark that shows it.
GATES = (
    (
        "norm + QKV + rotary",
        "no slower than cuBLASLt and a norm of its own",
        "norm_linear 14336x1536x512/gpu",
    ),
    ("encoder attention", "460 TFLOP/s at 2k rows, no slower than cuDNN", "attention 32x1792, 8 heads/gpu"),
    ("output projection + residual", "no slower than cuBLASLt and an addition", "linear 14336x512x1536/gpu"),
    ("SwiGLU", "no slower than cuBLASLt and kernels of their own", "swiglu 14336x1536x512/gpu"),
    (
        "QKV + rotary, Hopper's",
        "faster than cuBLASLt and kernels of their own",
        "linear_rotary_hopper 14336x1536x512/gpu",
    ),
    (
        "output projection + residual + norm, Hopper's",
        "faster than cuBLASLt and kernels of their own",
        "linear_norm_hopper 14336x512x1536/gpu",
    ),
    (
        "SwiGLU, Hopper's",
        "faster than cuBLASLt and kernels of their own",
        "linear_swiglu_hopper 14336x1536x512/gpu",
    ),
    (
        "beam cross-attention",
        "170 TFLOP/s from device memory, 295 from L2",
        "beam_attention 32x64 over 1792, 8 heads/gpu",
    ),
    ("selection, 30 steps", "180 us at batch 1", "search 1x64 beams, 30 steps, 20000 ads/gpu"),
    (
        "selection, 30 steps, 20 million ads",
        "990 us at batch 1",
        "search 1x64 beams, 30 steps, 20000000 ads/gpu",
    ),
    (
        "head and selection, 30 steps",
        "180 us at batch 1",
        "search_step_hopper d 512, batch 1, 30 steps, 20000 ads/gpu",
    ),
    ("creatives", "60 us at d 512", "creative d 512, batch 1/gpu"),
    ("reward", "20 us at batch 1", "reward d 512, batch 1/gpu"),
    ("payment and regret", "8 us for 100 misreports", "misreports d 512, 100/gpu"),
    ("GSP batch", "half of the copy bandwidth", "auction gsp, 200000 of 64 for 10/gpu"),
    ("VCG batch", "half of the copy bandwidth", "auction vcg, 200000 of 64 for 10/gpu"),
    ("residual quantizer", "80 % of a product of that shape", "quantize 131072x3x1024x64/gpu"),
    ("a request, d 256", "2.4 ms", "allocate d 256, batch 1/engine"),
    ("a request, d 512", "2.8 ms", "allocate d 512, batch 1/engine"),
    ("a request, d 1024", "4.0 ms", "allocate d 1024, batch 1/engine"),
    ("throughput, d 256", "5,000 requests a second at batch 128", "allocate d 256, batch 128/engine"),
    ("throughput, d 512", "1,850 requests a second at batch 128", "allocate d 512, batch 128/engine"),
    ("throughput, d 1024", "620 requests a second at batch 128", "allocate d 1024, batch 128/engine"),
    ("steady load, d 256, Poisson arrivals", STEADY, "d 256, poisson, 50 %"),
    ("steady load, d 512, Poisson arrivals", STEADY, "d 512, poisson, 50 %"),
    ("steady load, d 1024, Poisson arrivals", STEADY, "d 1024, poisson, 50 %"),
    ("steady load, d 256, even arrivals", STEADY, "d 256, even, 50 %"),
    ("steady load, d 512, even arrivals", STEADY, "d 512, even, 50 %"),
    ("steady load, d 1024, even arrivals", STEADY, "d 1024, even, 50 %"),
)


DOCUMENT = """\
# What has run on a GPU

Written by `scripts/gpu-check table` from the reports in `benches/reports`.

## Kernels

The kernels whose tests passed in a `gpu-check conformance`. On the emulator all of them run in each `cargo test`.

{kernels}

## Probes

What `gpu-check probe` found: medians. All samples are in the reports.

{probes}

## Speed

What is aimed at on an H100, and the figures of `gpu-check bench` and `gpu-check peer`. Throughput counts floating
point operations, bytes or requests, as the bench does. A steady load is half of what the engine serves at most.

{speed}
"""

# What the engine does not launch unless it is asked to.
OFF = [
    "Off unless `--gpu-kernels hopper` asks for them, and run on the emulator alone: `linear_hopper.cu` (bulk",
    "copies and wgmma in place of `linear.cu`), `linear_rotary_hopper.cu`, `linear_swiglu_hopper.cu` and",
    "`linear_norm_hopper.cu` (the same with epilogues, in place of the encoder's other products and norms) and,",
    "for heads of 64, `attention_hopper.cu` (the same in place of `attention.cu`) and `beam_attention_hopper.cu`",
    "(the same and clusters in place of `beam_attention.cu`); and `search_step_hopper.cu` (clusters in place of",
    "the head's launch, `expand.cu` and `select.cu`, with the same bits).",
    "",
    "Off unless `--gpu-kernels persistent` asks for it, and run on the emulator alone: `persistent_search.cu` and",
    "`decode_step.cu` (the search, and a position of the POI decoder, in one launch by clusters or a cooperative",
    "grid).",
    "",
    "Programmatic launches (each kernel begins while the one before still runs, and waits for it), which come",
    "with `--gpu-kernels hopper`, have not run on a card either.",
]


def document(reports: list[Json]) -> str:
    """The document of all reports that are kept."""
    parts = {"kernels": kernels(reports), "probes": probes(reports), "speed": speed(reports)}
    return DOCUMENT.format(**{name: "\n".join(lines) for name, lines in parts.items()})


def kernels(reports: list[Json]) -> list[str]:
    """By kernel file and run (GPU, driver, commit, date), the kernels of passed tests."""
    passed = {}
    for report in (report for report in reports if report["check"] == "conformance"):
        run = tuple(report[key] for key in ("device", "driver", "commit", "date"))
        for test in report["tests"].values():
            for file, kernel in map(str.split, test["kernels"] if test["passed"] else []):
                passed.setdefault((file, run), set()).add(kernel)
    rows = [
        f"| `{file}.cu` | {', '.join(sorted(names))} | {' | '.join(run)} |"
        for (file, run), names in sorted(passed.items())
    ]
    head = ["| File | Kernels | GPU | Driver | Commit | Date |", "| --- | --- | --- | --- | --- | --- |"]
    table = [*head, *rows] if rows else ["No report yet: none has."]
    return [*table, "", *OFF]


def probes(reports: list[Json]) -> list[str]:
    """What the probes found on each GPU."""
    rows = [
        f"| {figure['what']} | {', '.join(f'{value:g} {name}' for name, value in figure['parameters'].items())} "
        f"| {figure['value']:.4g} {figure['unit']} | {report['device']} | {report['commit']} |"
        for report in reports
        if report["check"] == "probe"
        for probe in report["probes"].values()
        for figure in probe["figures"]
    ]
    head = ["| What | With | Found | GPU | Commit |", "| --- | --- | --- | --- | --- |"]
    return [*head, *rows] if rows else ["No report yet: none has run on a card."]


def speed(reports: list[Json]) -> list[str]:
    """What is aimed at, and what was reached."""
    measured = [report for report in reports if report["check"] in ("bench", "peer")]
    rows = [
        f"| {what} | {aim} | {'; '.join(reached(name, measured)) or 'not measured'} |"
        for what, aim, name in GATES
    ]
    return ["| What | Aim | Reached |", "| --- | --- | --- |", *rows]


def reached(name: str | None, reports: list[Json]) -> Iterator[str]:
    """The figures of a benchmark in the reports, the latest last."""
    for report in sorted(reports, key=lambda report: report["date"]):
        for result in report["benches"].values():
            if load := result.get("loads", {}).get(name):
                yield f"{told(load)} ({report['device']}, {report['commit']})"
            figure = result["figures"].get(name)
            if figure:
                found = f"{figure['median_ns'] / 1e3:.1f} us, {per_second(name, figure):.3g}/s"
                peer = result.get("peer", {}).get("figures", {}).get(name)
                if peer:
                    found += f", {figure['median_ns'] / peer['median_ns']:.2f} of PyTorch's time"
                yield f"{found} ({report['device']}, {report['commit']})"
