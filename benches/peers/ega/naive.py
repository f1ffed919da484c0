"""The naive version, as most would write it first around a `transformers`-style decoder.

One request at a time, the trie mask and the bids in Python on the host at every step, caches that are concatenated and
reordered. The model's modules and the search are those of `bidslate_train`; here is only the cache.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bidslate_train.allocation import Ask, Beam, Search, payments
from bidslate_train.blocks import Attention, DecoderBlock, Memory
from bidslate_train.config import BOI, SPECIALS
from bidslate_train.model import Model
from bidslate_train.requests import Requests

from . import ops
from .answer import Answer, Lists
from .asked import World


def split(attention: Attention, x: Tensor, name: str) -> Tensor:
    """A projection of x [rows, T, d] by heads, [rows, H, T, h]."""
    return ops.heads(getattr(attention, name)(x), attention.heads)


class CachedBlock:
    """A decoder block that sees one position at a time, for rows of one request."""

    def __init__(self, block: DecoderBlock, states: Tensor, theta: float) -> None:
        self.block, self.past = block, None
        head = states.shape[2] // block.self_attn.heads
        self.theta, self.head = theta, head
        self.cross = tuple(split(block.cross_attn, states, name) for name in ("k_proj", "v_proj"))

    def reorder(self, rows: Tensor) -> None:
        """Keeps the cached positions of these rows, in this order."""
        if self.past is not None:
            self.past = tuple(part.index_select(0, rows) for part in self.past)

    def __call__(self, x: Tensor, position: int) -> Tensor:
        """The block's output for x [rows, 1, d]."""
        block, attention = self.block, self.block.self_attn
        y = block.self_attn_norm(x)
        q, k, v = (split(attention, y, name) for name in ("q_proj", "k_proj", "v_proj"))
        cos, sin = (part[position] for part in ops.angles(position + 1, self.head, self.theta, x.device))
        q, new = ops.rotate(q, cos, sin), (ops.rotate(k, cos, sin), v)
        if self.past is not None:
            new = tuple(torch.cat(pair, 2) for pair in zip(self.past, new, strict=True))
        self.past = new
        x = x + attention.o_proj(ops.joined(_attend(q, *self.past)))
        q = split(block.cross_attn, block.cross_attn_norm(x), "q_proj")
        keys, values = (part.expand(len(x), -1, -1, -1) for part in self.cross)
        x = x + block.cross_attn.o_proj(ops.joined(_attend(q, keys, values)))
        return x + block.ffn(block.ffn_norm(x))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).float().softmax(-1).to(v.dtype) @ v


class CachedSearch(Search):
    """The search of `bidslate_train` with a cache: a beam's row is found by its codes."""

    def __init__(self, model: Model, memory: Memory, ask: Ask) -> None:
        super().__init__(model, memory, ask)
        c = model.config
        blocks = [model.decoder[str(layer)] for layer in range(c.decoder_layers)]
        self.blocks = [CachedBlock(block, memory.states, c.rope_theta) for block in blocks]
        self.rows: dict[tuple[int, ...], int] = {}
        self.hidden: dict[tuple[int, ...], Tensor] = {}  # by the codes before it

    def _logits(self, beams: list[Beam], layer: int) -> Iterator[list[float]]:
        if not beams:
            return iter(())
        codes = [tuple(beam.codes) for beam in beams]
        hidden = self.decode(codes)
        logits = self.model.poi_logits(hidden, torch.tensor([layer], device=hidden.device))
        return iter(logits[:, 0].double().tolist())

    def decode(self, codes: list[tuple[int, ...]]) -> Tensor:
        """Hidden states [rows, 1, d] behind these codes, all of one length, one more than at the last call."""
        c, device = self.model.config, self.memory.states.device
        position = len(codes[0])
        parents = torch.tensor([self.rows[row[:-1]] for row in codes] if position else [0], device=device)
        last = (position - 1) % c.poi_code_layers * c.codebook_size + SPECIALS
        tokens = torch.tensor([[row[-1] + last] if position else [BOI] for row in codes], device=device)
        x = self.model.embed(tokens)
        for block in self.blocks:
            block.reorder(parents)
            x = block(x, position)
        hidden = self.model.decoder["norm"](x)
        self.rows = {row: i for i, row in enumerate(codes)}
        self.hidden.update(zip(codes, hidden[:, 0], strict=True))
        return hidden

    def item_states(self, beams: list[Beam]) -> Tensor:
        """The state [items, d] of every item of every list, list after list."""
        layers = self.model.config.poi_code_layers
        ends = [tuple(beam.codes[: (slot + 1) * layers]) for beam in beams for slot in range(len(beam.items))]
        new = sorted({end for end in ends if end not in self.hidden})
        if new:  # the last items, whose last codes nothing has read yet
            self.decode(new)
        return torch.stack([self.hidden[end] for end in ends])


class Naive:
    """Answers the requests of a file one by one; generation in `dtype`, reward and payment in f32."""

    def __init__(
        self, world: World, model: Model, requests: Requests, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.world, self.requests, self.device = world, requests, device
        self.asks = [Ask.of(line, world.catalog, world.config) for line in requests.lines]
        self.host = model.eval()
        self.judge = copy.deepcopy(model).to(device)
        self.model = copy.deepcopy(model).to(device, dtype)

    @torch.no_grad()
    def answer(self, row: int) -> Answer:
        """The answer to the request in a row."""
        histories = self.requests.histories.rows(torch.tensor([row])).to(self.device)
        length = int(histories.length[0])
        memory = self.model.encode(histories.map(lambda t: t[:, :length] if t.dim() > 1 else t))
        ask = self.asks[row]
        search = CachedSearch(self.model, memory, ask)
        beams = search.run()
        creatives = self._creatives(search, beams)
        features, p = self._evaluate(memory, beams, creatives)
        rewards = [self._reward(ask, beam, p[i]) for i, beam in enumerate(beams)]
        winner = max(range(len(beams)), key=lambda i: (rewards[i], beams[i].score, -i))
        slots = len(beams[winner].items)
        _, micros = payments(self.host, beams[winner], features[winner, :slots], p[winner, :slots])
        lists = Lists.of_rows(
            [[item.row for item in beam.items] for beam in beams],
            creatives,
            [beam.score for beam in beams],
            rewards,
            self.world.catalog,
        )
        return Answer(lists.shown[winner], micros, lists)

    def _creatives(self, search: CachedSearch, beams: list[Beam]) -> list[list[int]]:
        """Rows of the creatives of each list, chosen greedily among each item's own."""
        items = [item for beam in beams for item in beam.items]
        if not items:
            return [[] for _ in beams]
        catalog, layers = self.world.catalog, self.world.config.creative_code_layers
        states = search.item_states(beams).unsqueeze(0)
        spelled = torch.zeros(1, len(items), layers, dtype=torch.int64)
        own = [list(range(*catalog.offsets[item.row : item.row + 2])) for item in items]
        for layer in range(layers):
            logits = self.model.decode_creative(search.memory, states, spelled.to(self.device))
            for slot, row in enumerate(logits[0, :, layer].tolist()):
                codes = catalog.creative_codes[own[slot], layer].tolist()
                best = max(sorted(set(codes)), key=row.__getitem__)
                own[slot] = [r for r, code in zip(own[slot], codes, strict=True) if code == best]
                spelled[0, slot, layer] = best
        chosen = iter(rows[0] for rows in own)
        return [[next(chosen) for _ in beam.items] for beam in beams]

    def _evaluate(
        self, memory: Memory, beams: list[Beam], creatives: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Features [lists, K, d_r] and probabilities [lists, K, 3]."""
        catalog, slots = self.world.catalog, self.world.config.list_len
        rows, shown = (torch.zeros(len(beams), slots, dtype=torch.int64) for _ in range(2))
        filled = torch.zeros(len(beams), slots, dtype=torch.bool)
        for i, beam in enumerate(beams):
            rows[i, : len(beam.items)] = torch.tensor([item.row for item in beam.items], dtype=torch.int64)
            shown[i, : len(beam.items)] = torch.tensor(creatives[i], dtype=torch.int64)
            filled[i, : len(beam.items)] = True
        of_items = (torch.from_numpy(table)[rows] for table in (catalog.codes, catalog.embedding))
        codes, embedding = (part.to(self.device) for part in of_items)
        spelled = torch.from_numpy(catalog.creative_codes)[shown].to(self.device)
        mean = memory.mean().float().expand(len(beams), -1)
        out = self.judge.evaluate(mean, codes, spelled, embedding, filled.to(self.device))
        return out.features.cpu(), out.logits.sigmoid().cpu()

    def _reward(self, ask: Ask, beam: Beam, p: Tensor) -> float:
        revenue, *others = ask.objective
        unit, total = self.world.config.bid_unit_micros, 0.0
        for item, probabilities in zip(beam.items, p.tolist(), strict=False):
            total += revenue * item.bid_micros / unit * probabilities[0]
            total += sum(weight * q for weight, q in zip(others, probabilities, strict=True))
        return total
