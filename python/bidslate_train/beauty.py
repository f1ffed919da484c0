"""The backbone on Amazon Beauty by TIGER's protocol, searched by the engine itself.

Of each user the last item is for the test, the one before it for validation, histories keep the last B items, and every
item of the catalog may be the answer. In the engine that is a catalog whose items are all ads with one bid, and
requests with alpha 0 and one slot: the candidate lists, best first, are the ranking.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from bidslate_train import engine, export
from bidslate_train.catalog import Catalog
from bidslate_train.lines import Refused
from bidslate_train.model import Model
from bidslate_train.pretrain import code_loss, interest_parameters, mean_over
from bidslate_train.settings import Settings
from bidslate_train.training import LossOf, Order, Schedule, Training
from bidslate_train.visits import Examples, Visits

BID_MICROS = 1_000_000
CUTS = (5, 10)
TEST, VALIDATION = 1, 2
"""How many items from the end of a user's the answer stands."""


@dataclass
class BeautySettings(Schedule):
    """Table `beauty` of a run."""

    dropout: float = 0.1
    index: str = "index.quasid_zcr.json"  # the file of semantic ids
    validation_users: int = 2000  # of whom validation asks
    resamples: int = 1000  # of users, for the intervals


@dataclass
class Interactions:
    """Users' items in time order, and the catalog that holds their codes."""

    visits: Visits
    catalog: Catalog

    @classmethod
    def read(cls, data: Path, catalog: Catalog) -> Interactions:
        """From `inter.json`, {user: [items]}; users with fewer than three items cannot be split and are refused."""
        path = data / "inter.json"
        users = json.loads(path.read_text())
        rows = []
        for user, items in users.items():
            if len(items) < 3:
                raise Refused(f"{path}: user {user!r} has {len(items)} items, expected at least 3")
            unknown = [item for item in items if item not in catalog.rows]
            if unknown:
                raise Refused(f"{path}: user {user!r} has item {unknown[0]!r}, expected one of the index")
            rows.append([catalog.rows[item] for item in items])
        if not rows:
            raise Refused(f"{path}: no users")
        item = np.concatenate([np.array(row) for row in rows])
        start = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        visits = Visits(
            start, list(range(len(rows))), item, catalog.offsets[item], np.zeros_like(item), {}, {}
        )
        return cls(visits, catalog)

    def training(self, model: Model) -> Examples:
        """Every item of a user but the first and the two kept back is an answer."""
        spans = [
            (a + 1, b - VALIDATION)
            for a, b in zip(self.visits.start[:-1], self.visits.start[1:], strict=True)
        ]
        positions = np.concatenate([np.arange(a, b) for a, b in spans])
        ends = np.concatenate([np.full(b - a, b) for a, b in spans])
        return Examples(self.visits, self.catalog, model.config, [], positions, ends)

    def held_out(self, model: Model, back: int, users: np.ndarray) -> Examples:
        """The answers that stand `back` from the end, of some users."""
        positions = self.visits.start[1:][users] - back
        return Examples(self.visits, self.catalog, model.config, [], positions, positions + 1)

    def request(self, user: int, back: int, history: int) -> dict:
        """The request whose answer stands `back` from the end."""
        first, answer = self.visits.start[user], self.visits.start[user + 1] - back
        items = self.catalog.item_id[self.visits.item[max(first, answer - history) : answer]].tolist()
        behaviors = [{"item": item, "creative": item} for item in items]
        return {"id": user, "history": behaviors, "candidates": "all", "alpha": 0, "list_len": 1}

    def answers(self, back: int) -> np.ndarray:
        """Ids [users] of the items that stand `back` from the end."""
        return self.catalog.item_id[self.visits.item[self.visits.start[1:] - back]].astype(np.int64)


def build_catalog(data: Path, index: str, directory: Path) -> Catalog:
    """Builds the catalog of an index of semantic ids, every item an ad with the same bid."""
    ids = sorted(int(item) for item in json.loads((data / index).read_text()))
    bids = directory / "bids.jsonl"
    bids.write_text("".join(json.dumps({"id": i, "bid_micros": BID_MICROS}) + "\n" for i in ids))
    out = directory / "catalog.safetensors"
    files = ("--index", data / index, "--bids", bids, "--out", out)
    print(engine.bidslate("catalog", "build", "--model", directory, *files), end="", flush=True)
    return Catalog(out)


def next_item_loss(model: Model, examples: Examples) -> LossOf:
    """L_NTP of rows of examples, over the items that there are."""
    device = next(model.parameters()).device

    def loss_of(rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        targets = examples.targets(rows).to(device)
        count, slots, layers = targets.poi_codes.shape
        memory = model.encode(examples.histories(rows).to(device))
        _, logits = model.decode_poi(memory, targets.poi_codes.flatten(1))
        losses = code_loss(logits.view(count, slots, layers, -1), targets.poi_codes)
        return mean_over(losses, targets.real), {"next": losses[:, 0].mean().item()}

    return loss_of


def by_length(lengths: np.ndarray, group: int = 50) -> Order:
    """Rows of a step (see `training.draw`) of about equal history, so that little of a batch is padding.

    Each pass shuffles all rows, sorts every `group` batches of them by length and shuffles the batches.
    """

    def draw(seed: int, step: int, count: int, size: int) -> np.ndarray:
        turn, batch = divmod(step, size // count)
        g = np.random.default_rng((seed, turn))
        order = g.permutation(size)[: size // count * count]
        for at in range(0, len(order), group * count):
            part = order[at : at + group * count]
            order[at : at + group * count] = part[np.argsort(lengths[part], kind="stable")]
        return order.reshape(-1, count)[g.permutation(size // count)[batch]]

    return draw


def scores(ranked: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
    """Recall and NDCG of each user [users] from item ids, best first [users, beams], and the answers [users]."""
    found = ranked == answers[:, None]
    place = np.where(found.any(1), found.argmax(1), max(CUTS))
    values = {}
    for cut in CUTS:
        inside = place < cut
        values[f"R@{cut}"] = inside.astype(float)
        values[f"N@{cut}"] = np.where(inside, 1 / np.log2(place + 2), 0.0)
    return values


def intervals(
    values: dict[str, np.ndarray], resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Mean and the bootstrap's 95 % interval over users, of each measure."""
    g = np.random.default_rng(seed)
    count = len(next(iter(values.values())))
    means = {name: [] for name in values}
    for _ in range(resamples):
        rows = g.integers(count, size=count)
        for name, value in values.items():
            means[name].append(value[rows].mean())
    return {
        n: (float(v.mean()), *map(float, np.quantile(means[n], (0.025, 0.975)))) for n, v in values.items()
    }


def evaluate(directory: Path, interactions: Interactions, history: int, back: int) -> dict[str, np.ndarray]:
    """Each user's scores by the engine's beam search over the model in a directory."""
    requests, out = directory / "requests.jsonl", directory / "lists.safetensors"
    users = range(len(interactions.visits.users))
    lines = (json.dumps(interactions.request(user, back, history)) + "\n" for user in users)
    requests.write_text("".join(lines))
    engine.bidslate("generate", "--model", directory, "--requests", requests, "--out", out, "--lists")
    return scores(load_file(out)["lists.item"][:, :, 0], interactions.answers(back))


def train(settings: Settings, data: Path, out: Path) -> dict[str, tuple[float, float, float]]:
    """Trains on a directory of interactions and semantic ids, and prints the table of the test."""
    config, options = settings.model, settings.table("beauty", BeautySettings)
    out.mkdir(parents=True, exist_ok=True)
    export.replace(out / "config.json", config.to_json())
    torch.manual_seed(settings.seed)
    model = Model(config, options.dropout)
    interactions = Interactions.read(data, build_catalog(data, options.index, out))
    examples = interactions.training(model)
    users = np.random.default_rng(settings.seed).permutation(len(interactions.visits.users))
    held_out = interactions.held_out(model, VALIDATION, np.sort(users[: options.validation_users]))
    loss_of = next_item_loss(model, held_out)

    @torch.no_grad()
    def validate() -> dict[str, float]:
        parts = np.array_split(np.arange(len(held_out)), -(-len(held_out) // 100))
        return {"next": float(np.mean([loss_of(rows)[1]["next"] for rows in parts]))}

    training = Training("beauty", model, interest_parameters(model), options, out, settings.seed)
    lengths = examples.positions - examples.first
    training.run(next_item_loss(model, examples), len(examples), validate, order=by_length(lengths))
    export.save(model.cpu(), out)
    table = {}
    for name, back in (("validation", VALIDATION), ("test", TEST)):
        values = evaluate(out, interactions, config.history_len, back)
        table[name] = intervals(values, options.resamples, settings.seed)
        told = ", ".join(f"{n} {m:.4f} [{low:.4f}, {high:.4f}]" for n, (m, low, high) in table[name].items())
        print(f"beauty, {name}, {len(users)} users: {told}", flush=True)
    export.replace(out / "scores.json", json.dumps(table, indent=2) + "\n")
    return table["test"]
