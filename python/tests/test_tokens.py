"""The quantizer against the numpy reading of section 8, and what its training is for."""

import numpy as np
import pytest
import torch
from worlds import small_config

from bidslate_train import tokens
from bidslate_train.lines import Refused
from bidslate_train.model import Quantizer
from bidslate_train.tokens import RqVae, TokenSettings


def clusters(count=600, width=8, seed=1):
    g = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(12, width, generator=g)
    return centres[torch.arange(count) % 12] + 0.3 * torch.randn(count, width, generator=g)


def fitted(**changes):
    torch.manual_seed(5)
    settings = TokenSettings(**({"steps": 400, "warm_up": 200, "batch": 128, "rate": 5e-3} | changes))
    vae = RqVae(Quantizer(8, [16], 6, 3, 8), 8, [16], 6, settings)
    return vae, tokens.fit(vae, clusters(), seed=1)


def test_codes_are_those_of_section_8():
    vae, _ = fitted(steps=5)
    w = {name: tensor.detach().numpy() for name, tensor in vae.quantizer.state_dict().items()}
    rows = clusters(50).numpy()
    hidden = np.maximum(rows @ w["encoder.0.weight"].T + w["encoder.0.bias"], 0)
    residual = hidden @ w["encoder.1.weight"].T + w["encoder.1.bias"]
    for layer, column in enumerate(tokens.encode(vae.quantizer, torch.from_numpy(rows)).T):
        distances = ((residual[:, None] - w["codebook"][layer]) ** 2).sum(-1)
        np.testing.assert_array_equal(column, distances.argmin(1))
        residual = residual - w["codebook"][layer][column]


def test_training_explains_the_embeddings_and_uses_the_codes():
    _, use = fitted()
    assert use.error < 0.2
    assert min(use.used) == 8
    assert use.ids + use.collisions == 600


def test_a_balanced_last_layer_is_used_more_evenly():
    residual, codebook = torch.randn(400, 4), torch.randn(16, 4)
    counts = [
        torch.bincount(code, minlength=16).float()
        for code in (tokens.nearest(residual, codebook), tokens.balanced(residual, codebook, 30, 0.05))
    ]
    assert counts[1].std() < 0.5 * counts[0].std()


def test_dead_codes_are_revived():
    books = torch.zeros(1, 4, 2)
    used = [torch.tensor([3.0, 0, 1, 0])]
    residual = torch.ones(5, 2)
    tokens._revive(books, used, [(torch.zeros(5), residual)], torch.Generator())
    assert books[0].tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]
    assert used[0].sum() == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1, "embedding": [NaN, 0, 0, 0, 0, 0], "creatives": []}', "`embedding` holds a NaN"),
        ('{"id": 1, "embedding": [1], "creatives": []}', "`embedding` is not a list of 6 numbers"),
        ('{"id": 1}', "`embedding` is missing"),
    ],
)
def test_bad_embeddings_are_refused(tmp_path, line, message):
    path = tmp_path / "items.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(Refused, match=message) as refused:
        tokens.read_embeddings(path, small_config())
    assert "items.jsonl:2" in str(refused.value)
