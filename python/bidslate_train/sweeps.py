"""The payment network over rho: revenue against GSP's, and the regret that it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bidslate_train import engine, export, lines
from bidslate_train.alignment import Alignment
from bidslate_train.misreports import Misreports
from bidslate_train.payment import PaymentSettings, Split, train_payment
from bidslate_train.tables import write_csv, write_lines


def payment_networks(alignment: Alignment, rhos: list[float], out: Path, seed: int) -> None:
    """Trains a network for each rho on the run's own table, to the last step, and writes model directories by rho.

    `rho.csv` holds their figures on the requests that none of them saw, with GSP's revenue on the same lists.
    """
    run = alignment.run
    base, phase = run.out / "policy", run.out / "payment"
    settings = run.settings.table("payment", PaymentSettings)
    table = Misreports.read(phase / "misreports.safetensors")
    test = np.unique(Split.of(table, settings, seed).test.request.numpy())
    gsp = gsp_revenue(alignment, base, phase / "requests.jsonl", test, out)
    rows = []
    for rho in rhos:
        model = export.load(base)
        own = replace(settings, rho=rho)
        found = train_payment(model.payment["mlp"], table, own, seed, out / f"{rho:g}", last=True)
        export.save(model, out / f"{rho:g}")
        figures = {key: value for key, value in found.items() if key not in ("below_target", "settings")}
        rows.append({**figures, "gsp_revenue": gsp, "revenue_over_gsp": found["revenue"] / gsp})
    write_csv(out / "rho.csv", rows)


def gsp_revenue(alignment: Alignment, model: Path, requests: Path, rows: np.ndarray, work: Path) -> float:
    """Expected revenue per request, bid units, if the lists of some requests of a file are priced by GSP."""
    chosen = [line for row, (_, line) in enumerate(lines.read(requests)) if row in set(rows.tolist())]
    file, answers = work / "gsp-requests.jsonl", work / "gsp.jsonl"
    write_lines(file, ({**line, "payment": "gsp"} for line in chosen))
    catalog = alignment.run.catalog
    engine.bidslate("allocate", "--model", model, "--catalog", catalog, "--requests", file, "--out", answers)
    slots = [slot for _, answer in lines.read(answers) for slot in answer["slots"]]
    revenue = sum(slot["payment_micros"] * slot["pctr_poi"] for slot in slots)
    return revenue / alignment.config.bid_unit_micros / len(chosen)
