"""Generative allocation in PyTorch: sections 4 to 6 of the model, one request at a time, read straightforwardly.

It is what goldens are made with: slow, and separate from the engine. It knows the aggregate `max`, the scope `prefix`
and the payment `network`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bidslate_train.blocks import Memory
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.model import Model

M64 = (1 << 64) - 1
KNOWN = {
    "id", "context", "history", "candidates", "organic", "policy", "alpha", "beta", "objective", "list_len",
    "beam_width", "tie_seed", "payment",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """An item that a request may show."""

    row: int  # of the catalog
    id: int
    is_ad: bool
    bid_micros: int  # 0 if organic
    reserve_micros: int
    codes: tuple[int, ...]


@dataclass
class Ask:
    """A request's items and options."""

    ads: list[Item]
    organic: list[Item]  # in their fixed order
    max_ads: float
    min_gap: int
    first_ad_slot: int
    alpha: float
    beta: float
    objective: tuple[float, float, float, float]
    list_len: int
    beam_width: int
    tie_seed: int

    @classmethod
    def of(cls, line: dict[str, Any], catalog: Catalog, config: Config) -> Ask:
        """Reads a request (`docs/formats.md`); what this search does not know is a `ValueError`."""
        unknown = set(line) - KNOWN
        if unknown or line.get("payment", "network") != "network":
            raise ValueError(f"request {line.get('id')}: no goldens of {sorted(unknown) or line['payment']}")
        policy, objective = line.get("policy", {}), line.get("objective", {})
        weights = (
            objective.get("revenue", 1),
            *(objective.get(m, 0) for m in ("ctr_poi", "ctr_creative", "cvr")),
        )
        ads = [item for item in _items(line["candidates"], catalog) if item.bid_micros >= item.reserve_micros]
        return cls(
            ads,
            _items(line.get("organic", []), catalog),
            policy.get("max_ads", math.inf),
            policy.get("min_gap", 0),
            policy.get("first_ad_slot", 0),
            line.get("alpha", config.alpha),
            line.get("beta", config.beta),
            weights,
            line.get("list_len", config.list_len),
            line.get("beam_width", config.beam_width),
            line.get("tie_seed", 0),
        )


def _items(ids: list[int], catalog: Catalog) -> list[Item]:
    rows = [catalog.rows[item] for item in ids]
    return [
        Item(
            row,
            int(catalog.item_id[row]),
            bool(catalog.is_ad[row]),
            int(catalog.bid_micros[row]),
            int(catalog.reserve_micros[row]),
            tuple(catalog.codes[row].tolist()),
        )
        for row in rows
    ]


@dataclass
class Beam:
    """A list in the making; `zs` holds z of each item, `open` what may complete the codes of the next."""

    score: float = 0.0
    items: tuple[Item, ...] = ()
    zs: tuple[float, ...] = ()
    prefix: tuple[int, ...] = ()
    prefix_z: float = 1.0
    open: list[Item] = field(default_factory=list)
    done: bool = False

    @property
    def codes(self) -> list[int]:
        """All codes chosen so far."""
        return [code for item in self.items for code in item.codes] + list(self.prefix)


def splitmix64(x: int) -> int:
    """The hash that breaks ties between equal bids."""
    z = (x + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


class Search:
    """Beam search with token-level bidding (Eq. 21-23) for one request with memory [1, n, d]."""

    def __init__(self, model: Model, memory: Memory, ask: Ask) -> None:
        self.model, self.memory, self.ask = model, memory, ask
        self.unit = model.config.bid_unit_micros

    def eligible(self, items: tuple[Item, ...]) -> list[Item]:
        """What may stand behind the items of a list: ads as the policy allows, the next organic item."""
        ask, slot = self.ask, len(items)
        ad_slots = [i for i, item in enumerate(items) if item.is_ad]
        near = bool(ad_slots) and slot - ad_slots[-1] <= ask.min_gap
        ads = slot >= ask.first_ad_slot and len(ad_slots) < ask.max_ads and not near
        shown = {item.row for item in items}
        organic = [item for item in ask.organic if item.row not in shown][:1]
        return organic + [item for item in ask.ads if ads and item.row not in shown]

    def ln_w(self, bid_micros: int) -> float:
        """Ln of b^alpha + beta; -inf where that is 0."""
        ln_bid = math.log(bid_micros / self.unit) if bid_micros else None
        parts = [] if ln_bid is None else [self.ask.alpha * ln_bid]
        parts += [math.log(self.ask.beta)] if self.ask.beta else []
        top = max(parts, default=-math.inf)
        return top + math.log(sum(math.exp(part - top) for part in parts)) if parts else top

    def run(self) -> list[Beam]:
        """The lists, best score first."""
        beams = [Beam(open=self.eligible(()))]
        for step in range(self.ask.list_len * self.model.config.poi_code_layers):
            layer = step % self.model.config.poi_code_layers
            logits = self._logits([beam for beam in beams if not beam.done], layer)
            found = []
            for q, beam in enumerate(beams):
                row = None if beam.done else next(logits)
                found += [(new.score, -q, -code, new) for code, new in self._continuations(beam, layer, row)]
            found.sort(key=lambda new: new[:3], reverse=True)
            beams = [new for *_, new in found[: self.ask.beam_width]]
        return beams

    def ln_w_along(self, items: tuple[Item, ...]) -> Tensor:
        """Ln w [slots C_p, W] of every code along a list, -inf where it is masked."""
        layers = self.model.config.poi_code_layers
        table = torch.full((len(items) * layers, self.model.config.codebook_size), -torch.inf)
        for slot, item in enumerate(items):
            open_items = self.eligible(items[:slot])
            for layer in range(layers):
                row = table[slot * layers + layer]
                for other in sorted(open_items, key=lambda other: other.bid_micros):
                    row[other.codes[layer]] = self.ln_w(other.bid_micros)
                open_items = [other for other in open_items if other.codes[layer] == item.codes[layer]]
        return table

    def _logits(self, beams: list[Beam], layer: int) -> Any:
        """An iterator over the logits [W] of the next code of each beam."""
        if not beams:
            return iter(())
        codes = torch.tensor([beam.codes for beam in beams], dtype=torch.int64).view(len(beams), -1)
        memory = self.memory.rows(torch.zeros(len(beams), dtype=torch.int64))
        hidden, _ = self.model.decode_poi(memory, codes)
        return iter(self.model.poi_logits(hidden[:, -1:], torch.tensor([layer]))[:, 0].double().tolist())

    def _continuations(self, beam: Beam, layer: int, logits: list[float] | None) -> list[tuple[int, Beam]]:
        groups: dict[int, list[Item]] = {}
        for item in beam.open if not beam.done else []:
            groups.setdefault(item.codes[layer], []).append(item)
        bids = {code: max(item.bid_micros for item in group) for code, group in groups.items()}
        weights = {code: self.ln_w(bid) for code, bid in bids.items()}
        scores = {code: logits[code] + w for code, w in weights.items() if w > -math.inf}
        if not scores:
            return [(-1, Beam(beam.score, beam.items, beam.zs, done=True))]
        top = max(scores.values())
        total = top + math.log(sum(math.exp(score - top) for score in scores.values()))
        return [
            (code, self._extend(beam, code, score - total, groups[code])) for code, score in scores.items()
        ]

    def _extend(self, beam: Beam, code: int, ln_z: float, group: list[Item]) -> Beam:
        score, z, prefix = beam.score + ln_z, beam.prefix_z * math.exp(ln_z), (*beam.prefix, code)
        if len(prefix) < self.model.config.poi_code_layers:
            return Beam(score, beam.items, beam.zs, prefix, z, group)
        best = max(group, key=lambda item: (item.bid_micros, splitmix64(self.ask.tie_seed ^ item.id)))
        items = (*beam.items, best)
        return Beam(score, items, (*beam.zs, z), open=self.eligible(items))


@dataclass
class Outcome:
    """An allocation and what led to it; lists in the order of their scores."""

    beams: list[Beam]
    creatives: list[list[int]]  # rows of the catalog's creatives
    rewards: list[float]
    winner: int
    poi_logits: Tensor  # [slots C_p, W] along the winning list
    ln_w: Tensor  # the same shape: ln w of every code there
    creative_logits: Tensor  # [slots, C_c, W] along the winning creatives
    features: Tensor  # [slots, d_r]
    probabilities: Tensor  # [slots, 3]
    rates: list[float]  # 0 if organic
    payments: list[int]  # micros


@torch.no_grad()
def allocate(model: Model, memory: Memory, ask: Ask, catalog: Catalog) -> Outcome:
    """The list of highest reward among those found, its creatives and its payments."""
    search = Search(model, memory, ask)
    beams = search.run()
    creatives = [_creatives(model, memory, beam, catalog) for beam in beams]
    scored = [_reward(model, memory, ask, beam, c, catalog) for beam, c in zip(beams, creatives, strict=True)]
    rewards = [reward for reward, *_ in scored]
    winner = max(range(len(beams)), key=lambda i: (rewards[i], beams[i].score, -i))
    beam, (_, features, probabilities) = beams[winner], scored[winner]
    hidden, logits = model.decode_poi(memory, torch.tensor([beam.codes], dtype=torch.int64))
    creative_logits = hidden.new_zeros(0, model.config.creative_code_layers, model.config.codebook_size)
    if beam.items:
        codes = torch.from_numpy(catalog.creative_codes[creatives[winner]])
        creative_logits = model.decode_creative(memory, model.item_states(hidden), codes.unsqueeze(0))[0]
    rates, micros = payments(model, beam, features, probabilities)
    ln_w = search.ln_w_along(beam.items)
    return Outcome(
        beams,
        creatives,
        rewards,
        winner,
        logits[0],
        ln_w,
        creative_logits,
        features,
        probabilities,
        rates,
        micros,
    )


def _creatives(model: Model, memory: Memory, beam: Beam, catalog: Catalog) -> list[int]:
    """Rows of the creatives that the greedy decoder spells, among each item's own."""
    if not beam.items:
        return []
    hidden, _ = model.decode_poi(memory, torch.tensor([beam.codes]))
    states = model.item_states(hidden)
    spelled = torch.zeros(1, len(beam.items), model.config.creative_code_layers, dtype=torch.int64)
    own = [list(range(*catalog.offsets[item.row : item.row + 2])) for item in beam.items]
    for layer in range(model.config.creative_code_layers):
        logits = model.decode_creative(memory, states, spelled)[0, :, layer].tolist()
        for slot, rows in enumerate(own):
            codes = catalog.creative_codes[rows, layer].tolist()
            best = max(sorted(set(codes)), key=lambda code, slot=slot: logits[slot][code])
            own[slot] = [row for row, code in zip(rows, codes, strict=True) if code == best]
            spelled[0, slot, layer] = best
    return [rows[0] for rows in own]


def _reward(
    model: Model, memory: Memory, ask: Ask, beam: Beam, creatives: list[int], catalog: Catalog
) -> tuple[float, Tensor, Tensor]:
    """The reward of a list, its f [slots, d_r] and its probabilities [slots, 3]."""
    rows = [item.row for item in beam.items]
    if not rows:
        return 0.0, memory.states.new_zeros(0, model.config.reward_hidden_size), memory.states.new_zeros(0, 3)
    out = model.evaluate(
        memory.mean(),
        torch.from_numpy(catalog.codes[rows])[None],
        torch.from_numpy(catalog.creative_codes[creatives])[None],
        torch.from_numpy(catalog.embedding[rows])[None].to(memory.states.dtype),
        torch.ones(1, len(rows), dtype=torch.bool),
    )
    p = torch.sigmoid(out.logits[0])
    m_rev, *others = ask.objective
    total = 0.0
    for item, probabilities in zip(beam.items, p.double().tolist(), strict=True):
        total += m_rev * item.bid_micros / model.config.bid_unit_micros * probabilities[0]
        total += sum(m * q for m, q in zip(others, probabilities, strict=True))
    return total, out.features[0], p


def payments(model: Model, beam: Beam, features: Tensor, p: Tensor) -> tuple[list[float], list[int]]:
    """Rates of the network and prices in micros (Eq. 25-26 and the rounding that follows)."""
    c, slots = model.config, len(beam.items)
    logs = torch.zeros(c.list_len, dtype=features.dtype)
    logs[:slots] = torch.tensor([math.log1p(item.bid_micros / c.bid_unit_micros) for item in beam.items])
    others = (
        torch.stack([torch.cat([logs[:i], logs[i + 1 :]]) for i in range(slots)])
        if slots
        else features[:, :0]
    )
    zq = torch.tensor(beam.zs, dtype=features.dtype) * p[:, 0]
    rates = model.payment_rate(features, others, zq).double().tolist() if slots else []
    prices = []
    for item, rate in zip(beam.items, rates, strict=True):
        micros = math.floor(rate * item.bid_micros * (1 + 2.0**-44))
        micros = micros // c.billable_unit_micros * c.billable_unit_micros
        prices.append(min(max(micros, item.reserve_micros), item.bid_micros) if item.is_ad else 0)
    return [rate if item.is_ad else 0.0 for item, rate in zip(beam.items, rates, strict=True)], prices
