"""Phase 0: semantic ids. An RQ-VAE for the embeddings of POIs and one for those of creatives.

The encoder and the codebooks are the spec's `quantizer.*` tensors; the decoder serves training alone. Codes of the
catalog come from the engine's argmin over the same tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- the customary name

from bidslate_train import lines
from bidslate_train.blocks import Mlp
from bidslate_train.config import Config
from bidslate_train.lines import Refused
from bidslate_train.model import Quantizer

KINDS = ("poi", "creative")


@dataclass
class TokenSettings:
    """Table `tokens` of a run."""

    steps: int = 1000
    batch: int = 1024
    rate: float = 1e-3
    commitment: float = 0.25  # weight of the term that draws the encoder to its codes
    warm_up: int = 300  # steps of the autoencoder alone, before the codebooks start
    kmeans: int = 10  # iterations of each layer's start
    revive_every: int = 100  # steps after which a code that none used starts anew at a residual
    sinkhorn: int = 5  # iterations that balance the last layer's assignment; 0: nearest codes there too
    sharpness: float = 0.05  # entropy weight of that assignment, in mean distances


@dataclass
class Use:
    """How embeddings spread over the codes."""

    used: list[int]  # codes used, per layer
    perplexity: list[float]  # exp of the entropy of the codes' use, per layer
    ids: int  # different full codes
    collisions: int  # embeddings that share their full code with one before them
    count: int
    error: float = field(default=0.0)  # mean squared error of reconstruction, over the variance

    def __str__(self) -> str:
        layers = ", ".join(
            f"{u} used (perplexity {p:.1f})" for u, p in zip(self.used, self.perplexity, strict=True)
        )
        share = 100 * self.collisions / self.count
        return f"{layers}; {self.collisions} of {self.count} collide ({share:.2f} %); unexplained {self.error:.3f}"


def read_embeddings(path: str | Path, config: Config) -> dict[str, Tensor]:
    """Embeddings of the POIs and of all creatives in `items.jsonl`; NaN, infinities and wrong widths are refused."""
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for place, line in lines.read(path):
        found["poi"].append(_embedding(place, "embedding", line, config.item_embedding_size))
        for i, creative in enumerate(line.get("creatives", [])):
            found["creative"].append(
                _embedding(place, f"creatives[{i}].embedding", creative, config.creative_width)
            )
    for kind, rows in found.items():
        if not rows:
            raise Refused(f"{path}: no {kind} embeddings")
    return {kind: torch.tensor(rows) for kind, rows in found.items()}


def _embedding(place: str, field_name: str, line: dict, width: int) -> list[float]:
    values = lines.get(place, line, "embedding")
    if not isinstance(values, list) or len(values) != width:
        raise Refused(f"{place}: `{field_name}` is not a list of {width} numbers")
    if not np.isfinite(values).all():
        raise Refused(f"{place}: `{field_name}` holds a NaN or an infinity, expected finite numbers")
    return values


def nearest(residual: Tensor, codebook: Tensor) -> Tensor:
    """Index [n] of the nearest code [W, d_q] of each residual [n, d_q]; of equals the lowest."""
    return torch.cdist(residual, codebook).argmin(1)


def balanced(residual: Tensor, codebook: Tensor, iterations: int, sharpness: float) -> Tensor:
    """Index [n] of codes that are near and about equally used: Sinkhorn's transport plan, its largest entries."""
    distance = torch.cdist(residual, codebook).pow(2)
    plan = -distance / (sharpness * distance.mean())
    for _ in range(iterations):
        plan = plan - plan.logsumexp(0, keepdim=True)
        plan = plan - plan.logsumexp(1, keepdim=True)
    return plan.argmax(1)


def encode(quantizer: Quantizer, embeddings: Tensor) -> Tensor:
    """Codes [n, C] as the engine chooses them (spec 8)."""
    residual = quantizer.encoder(embeddings)
    codes = []
    for codebook in quantizer.codebook:
        code = nearest(residual, codebook)
        residual = residual - codebook[code]
        codes.append(code)
    return torch.stack(codes, 1)


def kmeans(rows: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Centres [count, width]; an empty cluster takes a row at random."""
    picks = torch.randperm(len(rows), generator=generator)
    centres = rows[picks.repeat(-(-count // len(rows)))[:count]].clone()
    for _ in range(iterations):
        code = nearest(rows, centres)
        sizes = torch.bincount(code, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, code, rows)
        centres = sums / sizes.clamp(min=1).unsqueeze(1)
        empty = torch.nonzero(sizes == 0).flatten()
        centres[empty] = rows[torch.randint(len(rows), (len(empty),), generator=generator)]
    return centres


class RqVae(nn.Module):
    """The quantizer of one kind with the decoder that it trains against."""

    def __init__(
        self, quantizer: Quantizer, width: int, hidden: list[int], size: int, settings: TokenSettings
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.decoder = Mlp([size, *reversed(hidden), width])
        self.settings = settings

    @torch.no_grad()
    def start(self, embeddings: Tensor, generator: torch.Generator) -> None:
        """Sets the codebooks by k-means on what earlier layers leave."""
        residual = self.quantizer.encoder(embeddings)
        for codebook in self.quantizer.codebook:
            codebook.copy_(kmeans(residual, len(codebook), self.settings.kmeans, generator))
            residual = residual - codebook[nearest(residual, codebook)]

    def forward(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The loss, and each layer's codes [n] and the residuals [n, d_q] that chose them."""
        s = self.settings
        y = self.quantizer.encoder(x)
        residual, total = y, torch.zeros_like(y)
        loss, chosen = x.new_zeros(()), []
        for layer, codebook in enumerate(self.quantizer.codebook):
            last = layer + 1 == len(self.quantizer.codebook)
            with torch.no_grad():
                code = (
                    balanced(residual, codebook, s.sinkhorn, s.sharpness)
                    if last and s.sinkhorn
                    else nearest(residual, codebook)
                )
            vector = codebook[code]
            loss = loss + F.mse_loss(vector, residual.detach())
            loss = loss + s.commitment * F.mse_loss(residual, vector.detach())
            chosen.append((code, residual.detach()))
            residual = residual - vector.detach()
            total = total + vector
        through = y + (total - y).detach()
        return loss + F.mse_loss(self.decoder(through), x), chosen

    def reconstruct(self, x: Tensor) -> Tensor:
        """The embeddings that the decoder makes of the engine's codes."""
        codes = encode(self.quantizer, x)
        return self.decoder(sum(book[codes[:, j]] for j, book in enumerate(self.quantizer.codebook)))

    def autoencode(self, x: Tensor) -> Tensor:
        """The loss without codes."""
        return F.mse_loss(self.decoder(self.quantizer.encoder(x)), x)


def fit(vae: RqVae, embeddings: Tensor, seed: int) -> Use:
    """Trains on embeddings [n, width] and says how they spread over the codes then."""
    s = vae.settings
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(vae.parameters(), lr=s.rate)
    used = [torch.zeros(len(book)) for book in vae.quantizer.codebook]
    for step in range(s.warm_up + s.steps):
        x = embeddings[torch.randint(len(embeddings), (s.batch,), generator=generator)]
        if step == s.warm_up:
            vae.start(embeddings, generator)
        loss, chosen = (vae.autoencode(x), []) if step < s.warm_up else vae(x)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"phase 0: the loss of step {step} is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = s.rate * (1 - step / (s.warm_up + s.steps))
        optimizer.step()
        for count, (code, _) in zip(used, chosen, strict=False):
            count += torch.bincount(code, minlength=len(count))
        if (
            chosen
            and (step - s.warm_up) % s.revive_every == s.revive_every - 1
            and step < s.warm_up + s.steps * 3 // 4
        ):
            _revive(vae.quantizer.codebook, used, chosen, generator)
    return report(vae, embeddings)


@torch.no_grad()
def _revive(
    codebooks: Tensor, used: list[Tensor], chosen: list[tuple[Tensor, Tensor]], g: torch.Generator
) -> None:
    """Moves the codes that no one used since the last call to residuals of the batch."""
    for codebook, count, (_, residual) in zip(codebooks, used, chosen, strict=True):
        dead = torch.nonzero(count == 0).flatten()
        codebook[dead] = residual[torch.randint(len(residual), (len(dead),), generator=g)]
        count.zero_()


@torch.no_grad()
def report(vae: RqVae, embeddings: Tensor) -> Use:
    """How the embeddings spread over the codes."""
    codes = encode(vae.quantizer, embeddings)
    counts = [torch.bincount(column, minlength=vae.quantizer.codebook.shape[1]) for column in codes.T]
    shares = [count[count > 0] / len(codes) for count in counts]
    ids = len(torch.unique(codes, dim=0))
    error = F.mse_loss(vae.reconstruct(embeddings), embeddings) / embeddings.var(0).mean()
    return Use(
        [int((count > 0).sum()) for count in counts],
        [float(torch.exp(-(share * share.log()).sum())) for share in shares],
        ids,
        len(codes) - ids,
        len(codes),
        float(error),
    )


def train(config: Config, settings: TokenSettings, items: Path, out: Path, seed: int) -> dict[str, Use]:
    """Fits both quantizers to the embeddings of `items.jsonl` and writes their tensors to a safetensors file."""
    if config.quantizer_size is None:
        raise ValueError("[model] has no quantizer_size: phase 0 has nothing to fit")
    embeddings = read_embeddings(items, config)
    layers = {"poi": config.poi_code_layers, "creative": config.creative_code_layers}
    tensors, uses = {}, {}
    for i, kind in enumerate(KINDS):
        torch.manual_seed(seed + i)
        width, shape = embeddings[kind].shape[1], (config.quantizer_hidden, config.quantizer_size)
        quantizer = Quantizer(width, *shape, layers[kind], config.codebook_size)
        uses[kind] = fit(RqVae(quantizer, width, *shape, settings), embeddings[kind], seed + i)
        print(f"phase 0, {kind}: {uses[kind]}", flush=True)
        tensors |= {
            f"quantizer.{kind}.{name}": t.detach().contiguous() for name, t in quantizer.state_dict().items()
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out)
    return uses
