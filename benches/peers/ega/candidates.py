"""The ads of a request as a tree of code prefixes, in tables that a device can follow.

Ads stand in the order of their codes, so that every prefix is a run of them. A node of level j is a prefix of j + 1
codes; the root is the one node of level -1. Built in NumPy, once per request, before the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bidslate_train.allocation import Ask
from bidslate_train.catalog import Catalog


@dataclass
class Level:
    """The nodes of one level, n of them, over N ads."""

    code: np.ndarray  # [n]: a node's last code
    first_ad: np.ndarray  # [n + 1]: node i owns ads first_ad[i] to first_ad[i + 1]
    ln_w: np.ndarray  # [n] f64: ln w of the highest bid behind a node
    first_child: (
        np.ndarray
    )  # [nodes of the level above + 1]: node i of that level owns children [i] to [i + 1]
    node: np.ndarray  # [N]: the node of each ad
    order: np.ndarray  # [N]: the ads of each node, the one that wins first
    rank: np.ndarray  # [N]: where an ad stands in that order of its node


@dataclass
class Candidates:
    """What a request may show."""

    ad_row: np.ndarray  # [N]: rows of the catalog, in the order of their codes
    ad_bid: np.ndarray  # [N] micros
    ad_hash: np.ndarray  # [N]: breaks ties between equal bids, higher first
    ad_ln_w: np.ndarray  # [N] f64
    organic_row: np.ndarray  # [O]: in their fixed order
    organic_hash: np.ndarray  # [O]
    levels: list[Level]


def splitmix64(x: np.ndarray) -> np.ndarray:
    """The hash that breaks ties, of u64, as i64 in the same order."""
    with np.errstate(over="ignore"):
        z = x + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31)) ^ np.uint64(1 << 63)).view(np.int64)


def ln_w(bids: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Ln of b^alpha + beta of bids in bid units, where 0^alpha is 0 (section 4)."""
    ln_beta = math.log(beta) if beta else -np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bids > 0, np.logaddexp(alpha * np.log(bids), ln_beta), ln_beta)


def _level(
    codes: np.ndarray, above: np.ndarray, bid: np.ndarray, tie: np.ndarray, weight: np.ndarray
) -> Level:
    """The level of the last column of `codes` [N, j + 1]; `above` [nodes + 1] is `first_ad` of the level above."""
    count = len(codes)
    starts = np.ones(count, bool)
    starts[1:] = (codes[1:] != codes[:-1]).any(1)
    node = np.cumsum(starts) - 1
    first_ad = np.append(np.flatnonzero(starts), count)
    order = np.lexsort((~tie, -bid, node))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count) - first_ad[node[order]]
    nodes = np.append(node, len(first_ad) - 1)
    return Level(
        codes[first_ad[:-1], -1], first_ad, weight[order[first_ad[:-1]]], nodes[above], node, order, rank
    )


def candidates(ask: Ask, catalog: Catalog, unit: int) -> Candidates:
    """The tables of a request, bids in units of `unit` micros."""
    rows = np.array([ad.row for ad in ask.ads], np.int64)
    rows = rows[np.lexsort(catalog.codes[rows].T[::-1])] if len(rows) else rows
    organic = np.array([item.row for item in ask.organic], np.int64)
    seed = np.uint64(ask.tie_seed)
    tie = splitmix64(catalog.item_id[rows] ^ seed)
    bid = catalog.bid_micros[rows]
    weight = ln_w(bid / unit, ask.alpha, ask.beta)
    codes = catalog.codes[rows]
    levels: list[Level] = []
    above = np.array([0, len(rows)])
    for layer in range(codes.shape[1]):
        levels.append(_level(codes[:, : layer + 1], above, bid, tie, weight))
        above = levels[-1].first_ad
    return Candidates(rows, bid, tie, weight, organic, splitmix64(catalog.item_id[organic] ^ seed), levels)


LEVEL_FIELDS = tuple(field.name for field in fields(Level))
