"""The strong version, as a good engineer would serve the model.

Padded batches of fixed sizes, joint products, static caches, everything from the first embedding to the payments on the
device without waiting for the host; compiled, and one CUDA graph, where asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bidslate_train.allocation import Ask
from bidslate_train.model import Model
from bidslate_train.requests import Requests

from .answer import Answer, Lists
from .asked import World
from .batch import Batch, collate
from .beams import Beams
from .candidates import Candidates, candidates
from .creative import choose_creatives, item_states
from .decoder import Decoder
from .encoder import Encoder
from .scoring import charge, evaluate, winners
from .search import advance
from .sizes import Sizes
from .weights import Weights

MOST_SLOTS = 60
"""Slots of a list have a bit each in a 64-bit number."""


class Found(NamedTuple):
    """All that was found for a batch, on the device."""

    items: Tensor  # [B, Q, K] rows, -1 for none
    creatives: Tensor  # [B, Q, K] rows, -1 for none
    log_prob: Tensor  # [B, Q]; -inf where there is no list
    rewards: Tensor  # [B, Q]
    winner: Tensor  # [B]
    won: Won


class Won(NamedTuple):
    """The winning lists: what goes back to the host."""

    items: Tensor  # [B, K] rows
    creatives: Tensor  # [B, K] rows
    ln_z: Tensor  # [B, K]
    probabilities: Tensor  # [B, K, 3]
    rates: Tensor  # [B, K]
    payments: Tensor  # [B, K] micros
    reward: Tensor  # [B]
    log_prob: Tensor  # [B]


@dataclass(frozen=True)
class Options:
    """How the strong version runs."""

    dtype: torch.dtype  # of products in encoder and decoders
    device: torch.device
    compile: bool = False
    graph: bool = False

    @property
    def scores(self) -> torch.dtype:
        """The type of scores: beside products of bf16, f32 is exact enough, and half the bytes."""
        return torch.float64 if self.dtype == torch.float32 else torch.float32


class Pipeline:
    """From a batch on the device to what was found, for batches of some sizes."""

    def __init__(self, weights: Weights, sizes: Sizes, options: Options) -> None:
        if weights.config.list_len > MOST_SLOTS:
            raise ValueError(f"list_len is {weights.config.list_len}, expected at most {MOST_SLOTS}")
        self.weights, self.sizes, self.options = weights, sizes, options

        if options.compile:  # what was compiled for other sizes counts against a limit on each function
            torch.compiler.reset()

        def fuse(function: Callable) -> Callable:
            return torch.compile(function, dynamic=False) if options.compile else function

        self.decoder = Decoder(weights, sizes, fuse)
        self.slots = torch.arange(weights.config.list_len, device=options.device)
        self._encode = fuse(Encoder(weights, sizes))
        self._advance = [fuse(advance_layer(layer)) for layer in range(weights.config.poi_code_layers)]
        self._creatives, self._evaluate, self._charge = map(fuse, (choose_creatives, evaluate, charge))

    def __call__(self, batch: Batch) -> Found:
        """What is found for a batch. Nothing here waits for the device."""
        w, c = self.weights, self.weights.config
        encoded = self._encode(batch.histories)
        beams, states = self.search(batch, encoded)
        states = item_states(states, beams.ancestors, c.poi_code_layers)
        creatives = self._creatives(w, encoded, states, beams.item, self.sizes.creatives)
        judged = self._evaluate(w, encoded.mean, beams.item, creatives, beams.score, batch.objective)
        winner = winners(judged.rewards, beams.score)
        every = torch.arange(self.sizes.batch, device=winner.device)

        def of_winner(values: Tensor) -> Tensor:
            return values[every, winner]

        items, ln_z = of_winner(beams.item), of_winner(beams.ln_z)
        probabilities = of_winner(judged.probabilities)
        bill = self._charge(w, items, ln_z, probabilities[..., 0], of_winner(judged.features))
        won = Won(
            items,
            of_winner(creatives),
            ln_z,
            probabilities,
            *bill,
            *map(of_winner, (judged.rewards, beams.score)),
        )
        return Found(beams.item, creatives, beams.score, judged.rewards, winner, won)

    def search(self, batch: Batch, encoded: object) -> tuple[Beams, Tensor]:
        """The lists, and the hidden states [K, B, Q, d] of all beam slots at the positions that read a last code."""
        layers, decoder = self.weights.config.poi_code_layers, self.decoder
        beams = Beams.start(batch, self.sizes, len(self.slots), decoder.positions, self.options.scores)
        states = []
        for position in range(decoder.positions):
            hidden = decoder.step(position, beams.token, beams.ancestors, encoded)
            slot, layer = divmod(position, layers)
            if position and layer == 0:
                states.append(hidden)
            if position + 1 < decoder.positions:
                logits = decoder.logits(hidden, layer)
                beams = self._advance[layer](
                    batch,
                    beams,
                    logits,
                    self.weights.item_codes,
                    self.slots[slot],
                    self.sizes.children[layer],
                )
                # Where the beam's own row will be, once the next position has run.
                beams.ancestors[..., position + 1 :] = torch.arange(self.sizes.beams, device=hidden.device)[
                    :, None
                ]
        return beams, torch.stack(states)


def advance_layer(layer: int) -> Callable[..., Beams]:
    """`search.advance` in one layer of codes: compiled, each layer is a function of its own."""

    def step(
        batch: Batch, beams: Beams, logits: Tensor, item_codes: Tensor, slot: Tensor, count: int
    ) -> Beams:
        return advance(batch, beams, logits, item_codes, slot, layer, count)

    return step


class Strong:
    """Answers the requests of a file, up to `batch` at a time."""

    def __init__(self, world: World, model: Model, requests: Requests, batch: int, options: Options) -> None:
        self.world, self.options, self.requests = world, options, requests
        c = world.config
        self.asks = [Ask.of(line, world.catalog, c) for line in requests.lines]
        self.sizes = Sizes.of(batch, requests, self._tables(range(len(requests))), c, world.catalog)
        weights = Weights.of(model, world.catalog, options.dtype, options.device)
        self.pipeline = Pipeline(weights, self.sizes, options)
        self._run = Recorded(self.pipeline) if options.graph else self._plain

    def _tables(self, rows: Sequence[int]) -> list[Candidates]:
        unit = self.world.config.bid_unit_micros
        return [candidates(self.asks[row], self.world.catalog, unit) for row in rows]

    def prepare(self, rows: Sequence[int]) -> Batch:
        """The batch of the requests in `rows`, on the host; with fewer than the batch has the last one fills it up."""
        rows = [*rows, *[rows[-1]] * (self.sizes.batch - len(rows))]
        asks = [self.asks[row] for row in rows]
        batch = collate(asks, self._tables(rows), self.requests.histories, rows, self.sizes)
        return batch.map(torch.Tensor.pin_memory) if self.options.device.type == "cuda" else batch

    def _plain(self, batch: Batch) -> Found:
        return self.pipeline(batch.map(lambda tensor: tensor.to(self.options.device, non_blocking=True)))

    @torch.no_grad()
    def run(self, batch: Batch) -> tuple[Found, Won]:
        """Carries a batch to the device, and the winners back: enqueued on a GPU, done on a CPU."""
        found = self._run(batch)
        return found, Won(*(tensor.to("cpu", non_blocking=True) for tensor in found.won))

    def answers(self, rows: Sequence[int]) -> list[Answer]:
        """The answers to the requests in `rows`, at most a batch of them, with all their lists."""
        found, won = self.run(self.prepare(rows))
        self.wait()
        return [self._answer(found, won, place) for place in range(len(rows))]

    def wait(self) -> None:
        """Waits for the device."""
        if self.options.device.type == "cuda":
            torch.cuda.synchronize()

    def _answer(self, found: Found, won: Won, place: int) -> Answer:
        catalog = self.world.catalog
        there = found.log_prob[place] > -torch.inf
        lists = Lists.of_rows(
            found.items[place][there].tolist(),
            found.creatives[place][there].tolist(),
            found.log_prob[place][there].tolist(),
            found.rewards[place][there].tolist(),
            catalog,
        )
        slots = int((won.items[place] >= 0).sum())
        return Answer(lists.shown[int(found.winner[place])], won.payments[place, :slots].tolist(), lists)


class Recorded:
    """A pipeline as one CUDA graph over memory of its own, recorded at the first batch."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Found:
        """What is found for a batch; the tensors are overwritten by the next."""
        if self.graph is None:
            self._record(batch)
        self.batch.copy_(batch)
        self.graph.replay()
        return self.found

    def _record(self, batch: Batch) -> None:
        self.batch = batch.map(lambda tensor: tensor.to(self.pipeline.options.device))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # compiles, chooses algorithms, and fills the allocator's pools
                self.pipeline(self.batch)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.found = self.pipeline(self.batch)
