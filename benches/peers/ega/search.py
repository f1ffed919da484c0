"""A step of the search with token-level bidding (section 4 of the model), all of it on the device.

A beam's ways on are columns: a column for each child of its node in the tree of ads, one for the next organic item
where no such child has its code, one for a beam that is finished. What a node's ads bid is known beforehand but for the
beam's own ads behind it, at most one a slot: those few nodes are looked at again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bidslate_train.config import SPECIALS

from . import ops
from .batch import Batch, Nodes
from .beams import Beams


class Organic(NamedTuple):
    """The next organic item of each beam, [B, Q]; without meaning where the beam may not show it."""

    row: Tensor
    hash: Tensor
    code: Tensor  # its code in the layer of the step


class Ways(NamedTuple):
    """The ways on of the beams, C children and two more columns."""

    ln_z: Tensor  # [B, Q, C + 1]: -inf where masked
    codes: Tensor  # [B, Q, C + 1]
    scores: Tensor  # [B, Q, C + 2]: of the beams that they lead to


def best_unused(nodes: Nodes, node: Tensor, used: Tensor) -> Tensor:
    """The ad that wins behind each node [B, Q, n] but for those used [B, Q, K]: its position, -1 for none.

    The used ads behind the node are marked by their ranks in its order; the lowest rank without a mark wins.
    """
    ads = used.clamp(min=0)
    behind = (ops.pick(nodes.node, ads).unsqueeze(2) == node.unsqueeze(3)) & (used >= 0).unsqueeze(2)
    # Of K used ads, one slot still empty, none of rank K or above matters.
    slots = used.shape[2]
    rank = ops.pick(nodes.rank, ads).unsqueeze(2)
    marks = torch.where(behind & (rank < slots), 1 << rank.clamp(max=slots), 0).sum(-1)
    lowest = (marks + 1) & ~marks
    place = ops.pick(nodes.first_ad, node) + lowest.double().log2().round().long()
    there = place < ops.pick(nodes.first_ad, node + 1)
    ad = ops.pick(nodes.order, place.clamp(max=nodes.order.shape[1] - 1))
    return torch.where(there, ad, -1)


def children(batch: Batch, nodes: Nodes, beams: Beams, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first child [B, Q] of each beam's node, and codes and ln w [B, Q, count] of its children, -inf for none."""
    first = ops.pick(nodes.first_child, beams.node)
    number = ops.pick(nodes.first_child, beams.node + 1) - first
    column = torch.arange(count, device=first.device)
    child = (first.unsqueeze(2) + column).clamp(max=nodes.code.shape[1] - 1)
    # A used ad's node, and what is left behind it; the last column takes those of other parents.
    node = ops.pick(nodes.node, beams.used.clamp(min=0))
    left = best_unused(nodes, node, beams.used)
    ln_w = torch.where(left >= 0, ops.pick(batch.ad_ln_w, left.clamp(min=0)), -torch.inf)
    at = node - first.unsqueeze(2)
    ours = (beams.used >= 0) & (at >= 0) & (at < number.unsqueeze(2))
    table = torch.cat([ops.pick(nodes.ln_w, child), ln_w[..., :1]], 2)
    table = table.scatter(2, torch.where(ours, at, count), ln_w)[..., :count]
    there = (column < number.unsqueeze(2)) & beams.ads_open.unsqueeze(2)
    return first, ops.pick(nodes.code, child), torch.where(there, table, -torch.inf)


def next_organic(batch: Batch, beams: Beams, item_codes: Tensor, layer: int) -> Organic:
    """The organic item that each beam may show next."""
    place = beams.organics.clamp(max=batch.organic_row.shape[1] - 1)
    row = ops.pick(batch.organic_row, place)
    return Organic(row, ops.pick(batch.organic_hash, place), item_codes[row, layer])


def ways_on(
    batch: Batch, beams: Beams, logits: Tensor, codes: Tensor, ln_w: Tensor, organic: Organic
) -> Ways:
    """What every way on scores; logits [B, Q, W], codes and ln w [B, Q, C] of the children."""
    code = organic.code.unsqueeze(2)
    # An organic item that shares its code with an open child is behind that child: it bids 0, and changes no maximum.
    merged = ((codes == code) & (ln_w > -torch.inf)).any(2)
    alone = beams.organic_open & ~merged
    own = torch.where(alone, batch.ln_beta.unsqueeze(1), -torch.inf).unsqueeze(2)
    codes = torch.cat([codes, code], 2)
    x = torch.cat([ln_w, own], 2).to(beams.score.dtype) + logits.gather(2, codes)
    total = x.logsumexp(2, keepdim=True)
    ln_z = torch.where(x > -torch.inf, x - total, -torch.inf)
    ended = beams.finished | (total.squeeze(2) == -torch.inf)
    score = beams.score.unsqueeze(2)
    keeps = torch.where(ended.unsqueeze(2), score, -torch.inf)
    moves = torch.where(ended.unsqueeze(2), -torch.inf, score + ln_z)
    return Ways(ln_z, codes, torch.cat([moves, keeps], 2))


def follow(beams: Beams, ways: Ways, first: Tensor, organic: Organic, width: Tensor) -> tuple[Beams, Organic]:
    """The best beams, at most `width` [B] of them, with the organic items that go with them."""
    columns, slots = ways.scores.shape[2], ways.scores.shape[1]
    score, chosen = ways.scores.flatten(1).topk(slots, 1)
    parent, column = chosen // columns, chosen % columns
    kept = torch.arange(slots, device=score.device) < width.unsqueeze(1)
    score = torch.where(kept, score, -torch.inf)
    new = beams.of(parent)
    new.score = score
    new.finished = (column == columns - 1) | (score == -torch.inf)
    way = parent * (columns - 1) + column.clamp(max=columns - 2)
    code = ops.pick(ways.codes.flatten(1), way)
    organic = Organic(*(values.gather(1, parent) for values in organic))
    new.item_ln_z = new.item_ln_z + ops.pick(ways.ln_z.flatten(1), way)
    new.ads_open = ~new.finished & (column < columns - 2)
    new.organic_open = ~new.finished & new.organic_open & (code == organic.code)
    new.node = torch.where(new.ads_open, first.gather(1, parent) + column, 0)
    new.token = code
    return new, organic


def close_item(batch: Batch, nodes: Nodes, beams: Beams, organic: Organic, slot: Tensor) -> None:
    """Puts the item behind each beam's full code into its slot [], and opens the next."""
    ad = best_unused(nodes, beams.node.unsqueeze(2), beams.used).squeeze(2)
    position = ad.clamp(min=0)
    outbids = (ops.pick(batch.ad_bid, position) > 0) | (ops.pick(batch.ad_hash, position) > organic.hash)
    is_ad = beams.ads_open & (ad >= 0) & (~beams.organic_open | outbids)
    row = torch.where(is_ad, ops.pick(batch.ad_row, position), organic.row)
    here = (torch.arange(beams.item.shape[2], device=ad.device) == slot) & ~beams.finished.unsqueeze(2)
    beams.item = torch.where(here, row.unsqueeze(2), beams.item)
    beams.used = torch.where(here & is_ad.unsqueeze(2), ad.unsqueeze(2), beams.used)
    beams.ln_z = torch.where(here, beams.item_ln_z.unsqueeze(2), beams.ln_z)
    beams.ads = beams.ads + is_ad
    beams.last_ad = torch.where(is_ad, slot, beams.last_ad)
    beams.organics = beams.organics + (~is_ad & ~beams.finished)
    beams.open_slot(batch, slot + 1)


def advance(
    batch: Batch, beams: Beams, logits: Tensor, item_codes: Tensor, slot: Tensor, layer: int, count: int
) -> Beams:
    """One step: the beams after choosing the code of a layer from logits [B, Q, W], with at most `count` children."""
    nodes = batch.levels[layer]
    organic = next_organic(batch, beams, item_codes, layer)
    first, codes, ln_w = children(batch, nodes, beams, count)
    ways = ways_on(batch, beams, logits, codes, ln_w, organic)
    beams, organic = follow(beams, ways, first, organic, batch.beam_width)
    beams.token = beams.token + SPECIALS + layer * logits.shape[2]
    if layer + 1 == len(batch.levels):
        close_item(batch, nodes, beams, organic, slot)
    return beams
