"""Goldens: what the PyTorch model makes of a few requests, held against the engine and kept for its tests.

The tensors have the names of the engine's trace (`docs/formats.md`), and beside those `{id}/winner/` `pctr_poi`,
`pctr_creative`, `pcvr`, `z` [K] F64 and `payment` [K] I64 in micros.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidslate_train import engine, export
from bidslate_train.allocation import Ask, Outcome, allocate
from bidslate_train.catalog import Catalog
from bidslate_train.model import TOWERS, Model
from bidslate_train.requests import Requests

TOLERANCE = 1e-4
"""Largest difference of a tensor's values, over its largest magnitude."""
HISTORY = 8
"""Behaviours that a golden's request keeps: more would only make the file larger."""
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"history": [], "alpha": 0.5, "beta": 8},
    {"list_len": 4, "beam_width": 16, "objective": {"ctr_poi": 0.5, "ctr_creative": 0.3, "cvr": 0.2}},
    {"policy": {}, "alpha": 2, "beta": 0.5, "beam_width": 32},
)
"""What each golden's request changes in one of the run's."""


def choose(path: Path) -> list[dict[str, Any]]:
    """The golden requests: from all over a file, with shorter histories and each with other options."""
    found = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if len(found) < len(OPTIONS):
        raise ValueError(f"{path}: {len(found)} requests, expected at least {len(OPTIONS)}")
    chosen = []
    for i, options in enumerate(OPTIONS):
        request = copy.deepcopy(found[i * len(found) // len(OPTIONS)])
        chosen.append(request | {"history": request["history"][-HISTORY:]} | options)
    return chosen


def tensors(model: Model, requests: Requests, catalog: Catalog) -> dict[str, Tensor]:
    """All golden tensors of the requests, by name."""
    found = {}
    for row, line in enumerate(requests.lines):
        histories = requests.histories.rows(torch.tensor([row]))
        length = int(histories.length[0])
        alone = histories.map(lambda t, length=length: t[:, :length] if t.dim() > 1 else t)
        with torch.no_grad():
            memory = model.encode(alone)
        outcome = allocate(model, memory, Ask.of(line, catalog, model.config), catalog)
        named = {"encoder": memory.states[0], **_outcome_tensors(model, outcome, line, catalog)}
        found |= {f"{line['id']}/{name}": tensor.contiguous() for name, tensor in named.items()}
    return found


def _outcome_tensors(model: Model, o: Outcome, line: dict[str, Any], catalog: Catalog) -> dict[str, Tensor]:
    c, width = model.config, line.get("beam_width", model.config.beam_width)
    beam = o.beams[o.winner]

    def ids(lists: list[list[int]]) -> Tensor:
        table = torch.full((width, c.list_len), -1)
        for row, values in enumerate(lists):
            table[row, : len(values)] = torch.tensor(values, dtype=torch.int64)
        return table

    def padded(values: Tensor, rows: int, fill: float = 0.0) -> Tensor:
        return torch.cat([values, values.new_full((rows - len(values), *values.shape[1:]), fill)])

    def numbers(values: list[float], rows: int) -> Tensor:
        return padded(torch.tensor(values, dtype=torch.float64), rows)

    codes = c.list_len * c.poi_code_layers
    probabilities = padded(o.probabilities.double(), c.list_len)
    return {
        "lists/items": ids([[item.id for item in b.items] for b in o.beams]),
        "lists/creatives": ids([[int(catalog.creative_id[r]) for r in rows] for rows in o.creatives]),
        "lists/log_prob": numbers([b.score for b in o.beams], width),
        "lists/reward": numbers(o.rewards, width),
        "winner/poi_logits": padded(o.poi_logits, codes),
        "winner/ln_w": padded(o.ln_w, codes, -torch.inf),
        "winner/creative_logits": padded(o.creative_logits, c.list_len),
        "winner/reward_features": padded(o.features, c.list_len),
        "winner/rate": numbers(o.rates, c.list_len),
        "winner/items": ids([[item.id for item in beam.items]])[0],
        "winner/z": numbers(list(beam.zs), c.list_len),
        "winner/payment": padded(torch.tensor(o.payments, dtype=torch.int64), c.list_len),
        **{f"winner/{tower}": probabilities[:, i] for i, tower in enumerate(TOWERS)},
    }


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest magnitude; infinite where shapes, infinities or whole numbers differ."""
    if ours.shape != theirs.shape or not torch.equal(torch.isfinite(ours), torch.isfinite(theirs)):
        return float("inf")
    if not ours.is_floating_point():
        return 0.0 if torch.equal(ours, theirs.to(ours.dtype)) else float("inf")
    finite = torch.isfinite(ours)
    a, b = ours[finite].double(), theirs[finite].double()
    if not a.numel():
        return 0.0
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


def response_tensors(response: dict[str, Any], list_len: int) -> dict[str, Tensor]:
    """What a response says of the winning list, by the goldens' names; payments are left out."""
    slots = response["slots"]
    rows = list_len - len(slots)
    found = {
        f"winner/{name}": torch.tensor([slot[name] for slot in slots] + [0.0] * rows, dtype=torch.float64)
        for name in (*TOWERS, "z")
    }
    found["winner/items"] = torch.tensor([slot["item"] for slot in slots] + [-1] * rows)
    return found


def compare(
    golden: dict[str, Tensor], trace: dict[str, Tensor], responses: list[dict[str, Any]]
) -> dict[str, float]:
    """The difference between golden and engine, for each tensor that both have.

    A payment is held to what its rate may differ by: a rate of `TOLERANCE` more is as many micros of the bid.
    """
    theirs = dict(trace)
    errors = {}
    for response in responses:
        if "error" in response:
            raise ValueError(f"the engine refuses golden request {response['id']}: {response['error']}")
        own = golden[f"{response['id']}/winner/payment"]
        theirs |= {f"{response['id']}/{k}": v for k, v in response_tensors(response, len(own)).items()}
        paid = torch.tensor([slot["payment_micros"] for slot in response["slots"]])
        bids = torch.tensor([slot["bid_micros"] for slot in response["slots"]]).clamp(min=1)
        off = (own[: len(paid)] - paid).abs() / bids
        errors[f"{response['id']}/winner/payment"] = float(off.max()) if len(off) else 0.0
    for name, tensor in golden.items():
        if name in theirs:
            errors[name] = difference(tensor, theirs[name])
    return errors


def write(directory: Path, requests: Path, work: Path) -> dict[str, float]:
    """Writes `golden.safetensors` and `golden-requests.jsonl` beside the exported model, held against the engine.

    Raises `ValueError` where the engine differs by more than `TOLERANCE`, or in any id.
    """
    work.mkdir(parents=True, exist_ok=True)
    kept = directory / "golden-requests.jsonl"
    kept.write_text("".join(json.dumps(request) + "\n" for request in choose(requests)))
    model = export.load(directory).eval()
    catalog = Catalog(directory / "catalog.safetensors")
    golden = tensors(model, Requests.read(kept, catalog, model.config), catalog)
    out, trace = work / "responses.jsonl", work / "trace.safetensors"
    engine.bidslate("allocate", "--model", directory, "--requests", kept, "--out", out, "--trace", trace)
    responses = [json.loads(line) for line in out.read_text().splitlines()]
    errors = compare(golden, load_file(trace), responses)
    worst = max(errors, key=lambda name: errors[name])
    print(f"goldens: {len(errors)} tensors, worst {worst}: {errors[worst]:.2g}", flush=True)
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    if wrong:
        raise ValueError(f"the engine differs from the PyTorch model: {wrong}")
    save_file(golden, directory / "golden.safetensors")
    return errors
