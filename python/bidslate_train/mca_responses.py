"""Lists of the multi-stage baseline as the engine's responses (`docs/formats.md`), with the audit of its own auction.

What another bid would bring is computed by running the auction again: recall, ranking and creatives depend on no bid,
so that this is everything that a new search could change (tier `redecode`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bidslate_train.mca import Stages
from bidslate_train.misreports import GRID
from bidslate_train.slot_auction import (
    AD_SLOTS,
    Candidates,
    Played,
    find,
    misreport_bids,
    payment_inputs,
    play,
)
from bidslate_train.tables import write_lines


def answer(stages: Stages, out: Path) -> None:
    """Writes the response to each request."""
    write_lines(out, (response(stages, request) for request in range(len(stages.requests))))


def response(stages: Stages, request: int) -> dict[str, Any]:
    """The list of a request, its payments and its audit."""
    candidates = stages.candidates(request)
    played = play(candidates, candidates.bid[None])
    places = np.flatnonzero(played.winner[0] >= 0)
    sold = settle(stages, candidates, played, np.zeros_like(places), places)
    shown = {
        AD_SLOTS[place]: _ad(stages, candidates, played, int(place), *sold[i])
        for i, place in enumerate(places)
    }
    slots = with_organic(stages, request, shown)
    add_creatives(stages, request, slots)
    unit = stages.config.bid_unit_micros
    return {
        "id": stages.requests.lines[request]["id"],
        "catalog_version": 1,
        "slots": slots,
        "reward": sum(slot["bid_micros"] / unit * slot["pctr_poi"] for slot in slots),
        "log_prob": 0.0,
        "beam": 0,
        "lists": 1,
        "rejected": [],
        "audit": {
            "tier": "redecode",
            "ads": [_audit(stages, candidates, played, int(place)) for place in places],
        },
    }


@torch.no_grad()
def settle(
    stages: Stages, candidates: Candidates, played: Played, profile: np.ndarray, place: np.ndarray
) -> list[tuple[float, int]]:
    """Rate and payment per click, in micros, of the ads in ad slots `place` [m] of profiles `profile` [m]."""
    if not len(place):
        return []
    inputs = payment_inputs(candidates, played, profile, place, stages.config.list_len)
    x = np.concatenate([inputs.features, inputs.others, inputs.zq[:, None]], 1)
    rates = torch.sigmoid(stages.payment(torch.from_numpy(x)).double()).squeeze(1).tolist()
    unit = stages.config.bid_unit_micros
    winners = candidates.row[played.winner[profile, place]]
    bids = np.rint(played.bid[profile, place] * unit).astype(np.int64)
    billable = stages.config.billable_unit_micros
    reserves = stages.catalog.reserve_micros[winners]
    return [
        (rate, price(rate, int(bid), int(reserve), billable))
        for rate, bid, reserve in zip(rates, bids, reserves, strict=True)
    ]


def price(rate: float, bid: int, reserve: int, unit: int) -> int:
    """The engine's integer payment in micros for a rate of the network (`docs/allocation.md`, section 5)."""
    x = math.floor(rate * bid * (1 + 2.0**-44))
    return min(max(x - x % unit, reserve), bid)


def _ad(
    stages: Stages, candidates: Candidates, played: Played, place: int, rate: float, payment: int
) -> dict[str, Any]:
    """A sold slot, but for its creative."""
    winner = int(played.winner[0, place])
    row = int(candidates.row[winner])
    return {
        "item": int(stages.catalog.item_id[row]),
        "kind": "ad",
        "bid_micros": int(stages.catalog.bid_micros[row]),
        "payment_micros": payment,
        "rate": rate,
        "pctr_poi": float(played.pctr[0, place]),
        "pcvr": float(candidates.pcvr[winner, place]),
        "z": float(played.share[0, place]),
        "marginal": None,
    }


@torch.no_grad()
def with_organic(stages: Stages, request: int, ads: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The list: ads in their slots, organic items in their order in all others, while there are any."""
    organic = iter(stages.requests.lines[request].get("organic", []))
    slots = []
    for slot in range(stages.list_len(request)):
        if slot in ads:
            slots.append(ads[slot])
            continue
        item = next(organic, None)
        if item is None:
            break
        inputs = stages.inputs.ranking(np.array([request]), np.array([stages.catalog.rows[item]]))
        pctr, pcvr = torch.sigmoid(stages.ranking(inputs, torch.tensor([slot]))[1][0]).tolist()
        slots.append(
            {
                "item": item, "kind": "organic", "bid_micros": 0, "payment_micros": 0, "rate": 0.0, "pctr_poi": pctr,
                "pcvr": pcvr, "z": 1.0, "marginal": None,
            }
        )  # fmt: skip
    return slots


@torch.no_grad()
def add_creatives(stages: Stages, request: int, slots: list[dict[str, Any]]) -> None:
    """Gives each slot the creative of its item that creative selection finds most likely to be clicked on."""
    catalog = stages.catalog
    items = [catalog.rows[slot["item"]] for slot in slots]
    spans = [np.arange(catalog.offsets[item], catalog.offsets[item + 1]) for item in items]
    counts = [len(span) for span in spans]
    creative, item = np.concatenate(spans), np.repeat(items, counts)
    inputs = stages.inputs.selection(np.full(len(item), request), item, creative)
    position = torch.from_numpy(np.repeat(np.arange(len(slots)), counts))
    probability = torch.sigmoid(stages.selection(inputs, position)[1][:, 0]).numpy()
    for slot, span, own in zip(slots, spans, np.split(probability, np.cumsum(counts)[:-1]), strict=True):
        best = int(own.argmax())
        slot["creative"] = int(catalog.creative_id[span[best]])
        slot["pctr_creative"] = float(own[best])


def _audit(stages: Stages, candidates: Candidates, truth: Played, place: int) -> dict[str, Any]:
    """What the ad in an ad slot would get by other bids; the fields of the engine's audit."""
    unit = stages.config.bid_unit_micros
    own = int(truth.winner[0, place])
    row = int(candidates.row[own])
    value = int(stages.catalog.bid_micros[row])
    bids = np.array([value, *(math.floor(gamma * value) for gamma in GRID)])  # the truth first
    played = play(candidates, misreport_bids(candidates.bid, own, bids / unit))
    at = find(played, own)
    shown = np.flatnonzero(at >= 0)
    sold = dict(zip(shown.tolist(), settle(stages, candidates, played, shown, at[shown]), strict=True))
    points = []
    for i, bid in enumerate(bids.tolist()):
        payment = sold[i][1] if i in sold else 0
        clicks = float(played.pctr[i, at[i]]) if i in sold else 0.0
        points.append(
            {
                "bid_micros": bid, "slot": AD_SLOTS[at[i]] if i in sold else None, "payment_micros": payment,
                "clicks": clicks, "cost_micros": payment * clicks, "utility_micros": (value - payment) * clicks,
                "z": float(played.share[i, at[i]]) if i in sold else 0.0,
            }
        )  # fmt: skip
    utility = points[0]["utility_micros"]
    return {
        "slot": AD_SLOTS[place],
        "item": int(stages.catalog.item_id[row]),
        "advertiser": None,
        "value_micros": value,
        "utility_micros": utility,
        "regret_micros": max(0.0, *(point["utility_micros"] - utility for point in points[1:])),
        "exact_regret_micros": None,
        "least_ratio": None,
        "sweep": [{"gamma": gamma, **point} for gamma, point in zip(GRID, points[1:], strict=True)],
    }
