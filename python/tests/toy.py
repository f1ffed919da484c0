"""A toy world on disk: a catalog and visits, as the importer and the engine write them."""

import json

import numpy as np
from safetensors.numpy import save_file
from worlds import small_config

AGES = [3600, 86400]


def toy_config(**changes):
    features = {"behavior_features": {"action": 4, "is_ad": 2, "recency": 3}}
    return small_config(**(features | changes))


def write_catalog(path, config, items=20, seed=1):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, items)
    w = config.codebook_size
    save_file(
        {
            "item.id": np.arange(100, 100 + items, dtype=np.uint64),
            "item.kind": (np.arange(items) % 3 == 0).astype(np.uint8),
            "item.codes": rng.integers(0, w, (items, config.poi_code_layers)).astype(np.uint16),
            "item.bid_micros": np.full(items, 1_500_000, np.uint64),
            "item.reserve_micros": np.zeros(items, np.uint64),
            "item.embedding": rng.normal(size=(items, config.item_embedding_size)).astype(np.float32),
            "item.creative_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64),
            "creative.id": np.concatenate([np.arange(c) for c in counts]).astype(np.uint64),
            "creative.codes": rng.integers(0, w, (counts.sum(), config.creative_code_layers)).astype(
                np.uint16
            ),
        },
        path,
    )


def visit_lines(lengths=(30, 12, 25), items=20, seed=2):
    rng = np.random.default_rng(seed)
    found = []
    for user, length in enumerate(lengths, 1):
        seconds = 600 * np.cumsum(
            rng.integers(1, 60, length)
        )  # so that some ages are just those where buckets end
        for visit in range(length):
            found.append(
                {
                    "user": user, "visit": visit, "second": int(seconds[visit]), "item": int(100 + rng.integers(items)),
                    "creative": 0, "features": {"action": int(rng.integers(4)), "is_ad": int(rng.integers(2))},
                    "context": {"hour": int(rng.integers(24))},
                }
            )  # fmt: skip
    return found


def write_lines(path, found):
    path.write_text("".join(json.dumps(line) + "\n" for line in found))


def write_toy(directory, config, **changes):
    """Catalog, visits and summary in a directory, the visits' lines returned."""
    write_catalog(directory / "catalog.safetensors", config)
    found = visit_lines(**changes)
    write_lines(directory / "visits.jsonl", found)
    (directory / "summary.json").write_text(json.dumps({"recency_seconds": AGES}))
    return found
