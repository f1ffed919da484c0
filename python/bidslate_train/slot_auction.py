"""The auction of the multi-stage baseline: candidates ranked by bid x pctr fill fixed ad slots from the top.

All bid profiles of one request are played at once: V profiles, n candidates, S ad slots, a list of K slots. Money is
in bid units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from bidslate_train.misreports import Misreports

AD_SLOTS = (1, 3, 5, 7)
"""Slots of the list that ads take; the requests' policy (none in slot 0, one item between two) allows just these."""


@dataclass
class Candidates:
    """The ads that recall found for a request, in ascending order of id."""

    row: np.ndarray  # [n]: rows of the catalog
    bid: np.ndarray  # [n] float64
    reserve: np.ndarray  # [n] float64
    pctr: np.ndarray  # [n, S] float64: probability of a click on the POI in each ad slot
    pcvr: np.ndarray  # [n, S] float64
    features: np.ndarray  # [n, S, d_r] float32: of the ranking stage


class Played(NamedTuple):
    """What V bid profiles lead to. An ad slot that stays empty has winner -1 and zeros."""

    winner: np.ndarray  # [V, S] int64: candidates
    bid: np.ndarray  # [V, S]
    share: np.ndarray  # [V, S]: bid x pctr over the sum of it over all candidates; it stands where z does
    pctr: np.ndarray  # [V, S]


def play(candidates: Candidates, bids: np.ndarray) -> Played:
    """Ranks candidates under bid profiles [V, n] by bid x pctr in the first ad slot; ties go to the lower candidate.

    Bids below their reserve take no part.
    """
    profiles, slots = len(bids), candidates.pctr.shape[1]
    score = np.where(bids >= candidates.reserve, bids * candidates.pctr[:, 0], 0.0)
    order = np.argsort(-score, axis=1, kind="stable")[:, :slots]
    taken = order.shape[1]
    won = np.take_along_axis(score, order, 1)
    sold = won > 0
    played = Played(np.full((profiles, slots), -1), *(np.zeros((profiles, slots)) for _ in range(3)))
    played.winner[:, :taken] = np.where(sold, order, -1)
    played.bid[:, :taken] = np.where(sold, np.take_along_axis(bids, order, 1), 0)
    played.share[:, :taken] = np.where(sold, won / np.maximum(score.sum(1, keepdims=True), 1e-300), 0)
    played.pctr[:, :taken] = np.where(sold, candidates.pctr[order, np.arange(taken)], 0)
    return played


class PaymentInputs(NamedTuple):
    """What the payment network reads of ads that are shown (`Model.payment_rate`)."""

    features: np.ndarray  # [..., d_r]
    others: np.ndarray  # [..., K - 1]: ln(1 + bid) of the other slots
    zq: np.ndarray  # [...]


def payment_inputs(
    candidates: Candidates, played: Played, profile: np.ndarray, place: np.ndarray, list_len: int
) -> PaymentInputs:
    """Inputs [m] of the ads in ad slots `place` [m] of profiles `profile` [m]."""
    winner = played.winner[profile, place]
    row = np.zeros((len(profile), list_len))
    row[:, list(AD_SLOTS)[: played.bid.shape[1]]] = np.log1p(played.bid[profile])
    own = np.array(AD_SLOTS)[place]
    others = row[np.arange(list_len) != own[:, None]].reshape(len(profile), list_len - 1)
    zq = played.share[profile, place] * played.pctr[profile, place]
    return PaymentInputs(candidates.features[winner, place], others.astype(np.float32), zq.astype(np.float32))


def find(played: Played, candidate: int) -> np.ndarray:
    """Ad slot of a candidate under each profile [V], -1 where it is not shown."""
    found = played.winner == candidate
    return np.where(found.any(1), found.argmax(1), -1)


def misreport_bids(values: np.ndarray, candidate: int, own: np.ndarray) -> np.ndarray:
    """Profiles [G, n] in which one candidate bids `own` [G] and the others their values [n]."""
    bids = np.repeat(values[None], len(own), 0)
    bids[:, candidate] = own
    return bids


class Table:
    """Collects misreports of many requests, in the form that the payment network trains on."""

    def __init__(self, gamma: np.ndarray, list_len: int) -> None:
        self.gamma, self.list_len = gamma, list_len
        self.rows: dict[str, list[np.ndarray]] = {name: [] for name in Misreports.PER_ROW}

    def add(self, request: int, sample: int, candidates: Candidates, values: np.ndarray) -> None:
        """The misreports of each ad that wins under the values [n]."""
        truth = play(candidates, values[None])
        for place in np.flatnonzero(truth.winner[0] >= 0):
            own = int(truth.winner[0, place])
            bids = self.gamma * values[own]
            played = play(candidates, misreport_bids(values, own, bids))
            at = find(played, own)
            shown = np.flatnonzero(at >= 0)
            inputs = payment_inputs(candidates, played, shown, at[shown], self.list_len)
            row = {
                "request": request, "sample": sample, "slot": place, "value": values[own],
                "reserve": candidates.reserve[own], "bid": bids, "shown": at >= 0,
                "features": _spread(inputs.features, shown, len(bids)),
                "others": _spread(inputs.others, shown, len(bids)),
                "zq": _spread(inputs.zq, shown, len(bids)),
                "pctr": _spread(played.pctr[shown, at[shown]], shown, len(bids)),
            }  # fmt: skip
            for name, value in row.items():
                self.rows[name].append(np.asarray(value))

    def misreports(self) -> Misreports:
        """All that was added."""
        whole = {name: torch.from_numpy(np.stack(values)) for name, values in self.rows.items()}
        integers = {name: whole.pop(name).long() for name in ("request", "sample", "slot", "shown")}
        reals = {name: value.float() for name, value in whole.items()}
        return Misreports(gamma=torch.from_numpy(self.gamma).float(), **integers, **reals)


def _spread(values: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
    """Values [m, ...] at some of `count` rows, zeros elsewhere."""
    out = np.zeros((count, *values.shape[1:]), values.dtype)
    out[at] = values
    return out
