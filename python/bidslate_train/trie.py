"""Codes of a catalog as a tree, and the search for one item along it."""

from __future__ import annotations

import numpy as np
import torch

from bidslate_train.blocks import Memory
from bidslate_train.model import Model


class Trie:
    """The prefixes of codes [N, C] as numbered nodes; the root is 0."""

    def __init__(self, codes: np.ndarray, codebook_size: int) -> None:
        prefixes: dict[tuple[int, ...], int] = {(): 0}
        for row in codes.tolist():
            for layer in range(len(row)):
                prefixes.setdefault(tuple(row[: layer + 1]), len(prefixes))
        self.children = torch.full((len(prefixes), codebook_size), -1)  # node of (node, code), -1 for none
        for prefix, node in prefixes.items():
            if prefix:
                self.children[prefixes[prefix[:-1]], prefix[-1]] = node
        self.items: dict[int, list[int]] = {}  # rows of `codes` that end at a node
        for row, full in enumerate(codes.tolist()):
            self.items.setdefault(prefixes[tuple(full)], []).append(row)

    def to(self, device: torch.device) -> Trie:
        """The same with its table on a device."""
        self.children = self.children.to(device)
        return self


@torch.no_grad()
def next_items(model: Model, memory: Memory, trie: Trie, width: int) -> list[list[int]]:
    """Rows of the likeliest next items of each request, likeliest first: beam search over one item.

    Items that share all their codes stand in the order of their rows.
    """
    count, device = len(memory.states), memory.states.device
    score = torch.zeros(count, 1, device=device)
    node = torch.zeros(count, 1, dtype=torch.int64, device=device)
    codes = torch.zeros(count, 1, 0, dtype=torch.int64, device=device)
    for layer in range(model.config.poi_code_layers):
        beams = score.shape[1]
        owner = torch.arange(count, device=device).repeat_interleave(beams)
        hidden, _ = model.decode_poi(memory.rows(owner), codes.flatten(0, 1))
        logits = model.poi_logits(hidden[:, -1:], torch.tensor([layer], device=device)).view(count, beams, -1)
        child = trie.children[node]
        total = (score.unsqueeze(2) + logits.log_softmax(-1)).masked_fill(child < 0, -torch.inf).flatten(1)
        score, pick = total.topk(min(width, total.shape[1]), 1)
        beam, code = pick // model.config.codebook_size, pick % model.config.codebook_size
        node = child.flatten(1).gather(1, pick)
        before = codes.gather(1, beam.unsqueeze(2).expand(-1, -1, layer))
        codes = torch.cat([before, code.unsqueeze(2)], 2)
    rows = zip(node.tolist(), score.tolist(), strict=True)
    return [
        [row for n, s in zip(nodes, scores, strict=True) if s > -np.inf for row in trie.items[n]]
        for nodes, scores in rows
    ]
