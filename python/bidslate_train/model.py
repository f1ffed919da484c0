"""The model, in plain operations and with the engine's tensor names: `state_dict()` is what the engine loads.

Encoder (Eq. 14), POI decoder (Eq. 15), creative decoder (the MTP module, Eq. 16), reward model (Eq. 18-20) and
payment network (Eq. 25-26). Shapes: N requests, B' behaviours, n = 1 + B' (1 + C_p + C_c) tokens, T codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- the customary name

from bidslate_train.blocks import DecoderBlock, EncoderBlock, Memory, Mlp, RmsNorm
from bidslate_train.config import BOC, BOI, CTX, SEP, SPECIALS, Config

TOWERS = ("pctr_poi", "pctr_creative", "pcvr")
"""Probabilities of a click on the POI, of a click on the creative, and of a conversion."""
TOWER_SIZES = (128, 32, 10, 1)


@dataclass
class Histories:
    """Requests as the encoder reads them: rows of past behaviours, oldest first, padded behind the last.

    A feature's value -1 is one that was not given; it adds nothing.
    """

    poi_codes: Tensor  # [N, B', C_p] int64
    creative_codes: Tensor  # [N, B', C_c] int64
    features: dict[str, Tensor]  # each [N, B'] int64
    context: dict[str, Tensor]  # each [N] int64
    length: Tensor  # [N] int64: behaviours before the padding

    def map(self, f: Callable[[Tensor], Tensor]) -> Histories:
        """The same with `f` applied to every tensor."""
        return Histories(
            f(self.poi_codes),
            f(self.creative_codes),
            {name: f(values) for name, values in self.features.items()},
            {name: f(values) for name, values in self.context.items()},
            f(self.length),
        )

    def to(self, device: torch.device | str) -> Histories:
        """The same on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor) -> Histories:
        """The rows of an index [M]."""
        return self.map(lambda tensor: tensor[index])

    def plain(self, row: int) -> tuple:
        """A row without its padding as lists and dicts: codes, creative codes, features, context."""
        past = slice(int(self.length[row]))
        return (
            self.poi_codes[row, past].tolist(),
            self.creative_codes[row, past].tolist(),
            {name: values[row, past].tolist() for name, values in self.features.items()},
            {name: int(values[row]) for name, values in self.context.items()},
        )


class RewardOutput(NamedTuple):
    """What the reward model says about lists; rows of empty slots hold nothing of meaning."""

    features: Tensor  # [N, K, d_r]: f
    logits: Tensor  # [N, K, 3]: before the sigmoid, in the order of TOWERS


class Quantizer(nn.Module):
    """Residual quantizer of one kind of embedding: an MLP to d_q, then a codebook for each layer."""

    def __init__(self, width: int, hidden: list[int], size: int, layers: int, codes: int) -> None:
        super().__init__()
        sizes = [width, *hidden, size]
        self.encoder = Mlp(sizes)
        self.codebook = nn.Parameter(torch.zeros(layers, codes, size))


class Model(nn.Module):
    """The whole model. `dropout` acts in training alone and is no part of what is saved."""

    def __init__(self, config: Config, dropout: float = 0.0) -> None:
        super().__init__()
        c = self.config = config
        d = c.hidden_size
        self.embed = nn.Embedding(c.vocabulary, d)
        self.context_features = _tables(c.context_features, d)
        self.behavior_features = _tables(c.behavior_features, d)
        self.encoder = nn.ModuleDict(
            {
                **{
                    str(layer): EncoderBlock(c, d, c.num_heads, c.ffn_size, dropout)
                    for layer in range(c.encoder_layers)
                },
                "norm": RmsNorm(d, c.rms_eps),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                **{str(layer): DecoderBlock(c, dropout) for layer in range(c.decoder_layers)},
                "norm": RmsNorm(d, c.rms_eps),
            }
        )
        self.poi_head = nn.Linear(d, c.poi_code_layers * c.codebook_size, bias=False)
        self.creative = nn.ModuleDict(
            {
                "hidden_norm": RmsNorm(d, c.rms_eps),
                "embed_norm": RmsNorm(d, c.rms_eps),
                "proj": nn.Linear(2 * d, d, bias=False),
                "block": DecoderBlock(c, dropout),
                "norm": RmsNorm(d, c.rms_eps),
            }
        )
        self.creative_head = nn.Linear(d, c.creative_code_layers * c.codebook_size, bias=False)
        self.reward = _reward(c)
        rate_inputs = c.reward_hidden_size + (c.list_len - 1) + 1
        self.payment = nn.ModuleDict({"mlp": Mlp([rate_inputs, *TOWER_SIZES])})
        if c.quantizer_size:
            shape = (c.quantizer_hidden, c.quantizer_size)
            self.quantizer = nn.ModuleDict(
                {
                    "poi": Quantizer(c.item_embedding_size, *shape, c.poi_code_layers, c.codebook_size),
                    "creative": Quantizer(c.creative_width, *shape, c.creative_code_layers, c.codebook_size),
                }
            )
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=d**-0.5)
        self.dropout = nn.Dropout(dropout)

    def poi_tokens(self, codes: Tensor) -> Tensor:
        """Vocabulary ids of POI codes [..., C_p]."""
        return self._tokens(codes, SPECIALS)

    def creative_tokens(self, codes: Tensor) -> Tensor:
        """Vocabulary ids of creative codes [..., C_c]."""
        return self._tokens(codes, SPECIALS + self.config.poi_code_layers * self.config.codebook_size)

    def _tokens(self, codes: Tensor, base: int) -> Tensor:
        layers = torch.arange(codes.shape[-1], device=codes.device)
        return base + layers * self.config.codebook_size + codes

    def _with_features(
        self, token: int, tables: nn.ModuleDict, values: dict[str, Tensor], shape: tuple[int, ...]
    ) -> Tensor:
        """A special token's vector plus the rows of all features, none where a value is -1; [*shape, d]."""
        total = self.embed.weight[token].expand(*shape, -1)
        for name, value in values.items():
            if value.shape != shape:
                raise ValueError(f"feature {name} is {tuple(value.shape)}, expected {shape}")
            total = total + tables[name](value.clamp(min=0)) * (value >= 0).unsqueeze(-1)
        return total

    def encode(self, histories: Histories) -> Memory:
        """S_e [N, n, d] with the mask of its real rows (Eq. 14)."""
        h = histories
        count, behaviors = h.poi_codes.shape[:2]
        first = self._with_features(CTX, self.context_features, h.context, (count,))
        separators = self._with_features(SEP, self.behavior_features, h.features, (count, behaviors))
        rows = torch.cat(
            [
                separators.unsqueeze(2),
                self.embed(self.poi_tokens(h.poi_codes)),
                self.embed(self.creative_tokens(h.creative_codes)),
            ],
            2,
        )
        tokens = rows.shape[2]
        x = torch.cat([first.unsqueeze(1), rows.flatten(1, 2)], 1)
        length = 1 + h.length * tokens
        mask = torch.arange(x.shape[1], device=x.device) < length.unsqueeze(1)
        x = self.dropout(x)
        for layer in range(self.config.encoder_layers):
            x = self.encoder[str(layer)](x, mask)
        return Memory(self.encoder["norm"](x), mask)

    def decode_poi(self, memory: Memory, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [N, T + 1, d] and logits [N, T, W] along given codes [N, T], layer after layer (Eq. 15).

        The logits of code t come from position t, which has read the codes before it.
        """
        c = self.config
        layers = torch.arange(codes.shape[1], device=codes.device) % c.poi_code_layers
        start = codes.new_full((len(codes), 1), BOI)
        tokens = torch.cat([start, SPECIALS + layers * c.codebook_size + codes], 1)
        x = self.dropout(self.embed(tokens))
        for layer in range(c.decoder_layers):
            x = self.decoder[str(layer)](x, memory)
        hidden = self.decoder["norm"](x)
        return hidden, self.poi_logits(hidden[:, :-1], layers)

    def poi_logits(self, hidden: Tensor, layers: Tensor) -> Tensor:
        """Logits [N, T, W] of positions [N, T, d] that each choose a code of the layer given [T]."""
        head = self.poi_head.weight.view(self.config.poi_code_layers, self.config.codebook_size, -1)
        logits = hidden.new_zeros(*hidden.shape[:2], self.config.codebook_size)
        for layer in range(self.config.poi_code_layers):
            at = layers == layer
            logits[:, at] = F.linear(hidden[:, at], head[layer])
        return logits

    def item_states(self, hidden: Tensor) -> Tensor:
        """State h [N, K, d] of each item: the position whose input is its last code, of the states of K C_p codes."""
        return hidden[:, self.config.poi_code_layers :: self.config.poi_code_layers]

    def decode_creative(self, memory: Memory, states: Tensor, codes: Tensor) -> Tensor:
        """Logits [N, K, C_c, W] of the creative codes [N, K, C_c] of items with states [N, K, d] (Eq. 16).

        Of `codes` only those before the last layer are read. Items do not see one another.
        """
        c, part = self.config, self.creative
        before = self.creative_tokens(codes)[..., :-1]
        tokens = torch.cat([torch.full_like(codes[..., :1], BOC), before], -1)
        embedded = part["embed_norm"](self.embed(tokens))
        hidden = part["hidden_norm"](states).unsqueeze(2).expand_as(embedded)
        x = part["proj"](torch.cat([hidden, embedded], -1))
        count, items, layers = codes.shape
        x = part["block"](x.flatten(1, 2), memory, groups=items)
        x = part["norm"](x).view(count, items, layers, -1)
        head = self.creative_head.weight.view(layers, c.codebook_size, -1)
        return torch.einsum("nkcd,cwd->nkcw", x, head)

    def evaluate(
        self, interest: Tensor, poi_codes: Tensor, creative_codes: Tensor, embedding: Tensor, filled: Tensor
    ) -> RewardOutput:
        """The reward model (Eq. 18-20) on lists of up to K slots.

        `interest` [N, d] is the mean of S_e (`Memory.mean`), codes are [N, K, C_p] and [N, K, C_c], `embedding` [N,
        K, d_item] holds the items' raw embeddings and `filled` [N, K] says which slots hold an item.
        """
        part = self.reward
        slots = poi_codes.shape[1]
        parts = [
            self.embed(self.poi_tokens(poi_codes)).sum(2),
            self.embed(self.creative_tokens(creative_codes)).sum(2),
            interest.unsqueeze(1).expand(-1, slots, -1),
            embedding,
        ]
        x = part["input"](torch.cat(parts, -1)) + part["position"].weight[:slots]
        for layer in range(self.config.reward_layers):
            x = part[str(layer)](x, filled)
        f = part["norm"](x)
        total = (f * filled.unsqueeze(-1)).sum(1, keepdim=True).expand_as(f)
        joint = torch.cat([f, total], -1)
        return RewardOutput(f, torch.cat([part["towers"][tower](joint) for tower in TOWERS], -1))

    def payment_rate(self, features: Tensor, others: Tensor, zq: Tensor) -> Tensor:
        """Rates [...] in (0, 1) from f [..., d_r], ln(1 + b) of the other slots [..., K - 1] and z pctr_poi [...]."""
        return torch.sigmoid(
            self.payment["mlp"](torch.cat([features, others, zq.unsqueeze(-1)], -1))
        ).squeeze(-1)


def _tables(sizes: dict[str, int], width: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Embedding(size, width) for name, size in sizes.items()})


def _reward(c: Config) -> nn.ModuleDict:
    d = c.reward_hidden_size
    blocks = {
        str(layer): EncoderBlock(c, d, c.reward_heads, 3 * d, rotary=False)
        for layer in range(c.reward_layers)
    }
    return nn.ModuleDict(
        {
            "input": nn.Linear(3 * c.hidden_size + c.item_embedding_size, d),
            "position": nn.Embedding(c.list_len, d),
            **blocks,
            "norm": RmsNorm(d, c.rms_eps),
            "towers": nn.ModuleDict({tower: Mlp([2 * d, *TOWER_SIZES]) for tower in TOWERS}),
        }
    )
