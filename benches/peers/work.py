"""The work that every contestant does: an encoder over one history, then a beam search.

It is the engine's `base` size. The engine's feed-forward layers are SwiGLU, three matrices of 512 x 1536; the peers
have two matrices, so theirs are 512 x 2304: the same products. The engine picks one of 1,024 codes a step, so the
peers' output vocabulary is 1,024 too (and four special tokens in CTranslate2).
"""

WIDTH = 512
HEADS = 8
HEAD_SIZE = WIDTH // HEADS
LAYERS = 3
FFN = 1536 * 3 // 2
TOKENS = 1792
BEAMS = 64
STEPS = 30
INPUT_VOCABULARY = 8 + 6 * 1024
CODES = 1024


def gflop() -> float:
    """Multiplications and additions of one run, norms and softmax apart."""
    products = 4 * WIDTH**2 + 2 * WIDTH * FFN
    encoder = LAYERS * (2 * TOKENS * products + 4 * TOKENS**2 * WIDTH)
    cross_keys_values = LAYERS * 2 * TOKENS * 2 * WIDTH**2
    step = LAYERS * (2 * BEAMS * (products + 2 * WIDTH**2) + 4 * BEAMS * TOKENS * WIDTH)
    head = 2 * BEAMS * WIDTH * CODES
    return (encoder + cross_keys_values + STEPS * (step + head)) / 1e9


def summary(samples: list[float]) -> dict[str, float | int]:
    """Milliseconds of the samples, which are in seconds."""
    ordered = sorted(samples)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {"ms_median": round(median * 1e3, 1), "ms_min": round(ordered[0] * 1e3, 1), "runs": len(ordered)}
