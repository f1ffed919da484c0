"""The model against the numpy reference, tensor by tensor, in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import NumpyModel
from worlds import random_histories, random_model, small_config

LENGTHS = [3, 0, 1]


def numpy_request(histories, row):
    def given(table, *index):
        return {name: int(v[index]) for name, v in table.items() if int(v[index]) >= 0}

    h = histories
    return SimpleNamespace(
        context=given(h.context, row),
        history=[
            (h.poi_codes[row, i].tolist(), h.creative_codes[row, i].tolist(), given(h.features, row, i))
            for i in range(int(h.length[row]))
        ],
    )


def close(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def world():
    config = small_config()
    model = random_model(config)
    histories = random_histories(config, LENGTHS)
    return model, NumpyModel(model), histories, model.encode(histories)


def test_encoder(world):
    model, numpy_model, histories, memory = world
    for row in range(len(LENGTHS)):
        expected = numpy_model.encode(numpy_request(histories, row))
        assert int(memory.mask[row].sum()) == len(expected)
        close(memory.states[row, : len(expected)], expected)
        close(memory.mean()[row], expected.mean(0))


def test_decoders(world):
    model, numpy_model, histories, memory = world
    c = model.config
    codes = torch.randint(c.codebook_size, (len(LENGTHS), c.list_len, c.poi_code_layers))
    creatives = torch.randint(c.codebook_size, (len(LENGTHS), c.list_len, c.creative_code_layers))
    hidden, logits = model.decode_poi(memory, codes.flatten(1))
    states = model.item_states(hidden)
    creative_logits = model.decode_creative(memory, states, creatives)
    for row in range(len(LENGTHS)):
        s_e = numpy_model.encode(numpy_request(histories, row))
        flat = codes[row].flatten().tolist()
        expected = numpy_model.decode_poi(flat, s_e)
        close(hidden[row], expected)
        for t in range(len(flat)):
            close(logits[row, t], numpy_model.head("poi_head", t % c.poi_code_layers, expected[t]))
        for k in range(c.list_len):
            h = expected[(k + 1) * c.poi_code_layers]
            close(states[row, k], h)
            expected_creative = numpy_creative_logits(numpy_model, h, creatives[row, k].tolist(), s_e)
            close(creative_logits[row, k], expected_creative)


def numpy_creative_logits(m, h, codes, s_e):
    """Logits of every layer, read off the reference's greedy search with the choice forced."""
    seen = []

    class Forced:
        creatives = ((0, tuple(codes)), (1, tuple(codes)))

    original = m.head
    m.head = lambda name, layer, x: seen.append(original(name, layer, x)) or seen[-1]
    m.choose_creative(Forced, h, s_e)
    m.head = original
    return np.array(seen)


def test_reward_and_payment(world):
    model, numpy_model, histories, memory = world
    c = model.config
    filled = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    poi = torch.randint(c.codebook_size, (3, c.list_len, c.poi_code_layers))
    creative = torch.randint(c.codebook_size, (3, c.list_len, c.creative_code_layers))
    embedding = torch.randn(3, c.list_len, c.item_embedding_size, dtype=torch.float64)
    out = model.evaluate(memory.mean(), poi, creative, embedding, filled)
    for row in range(3):
        items = [
            SimpleNamespace(
                codes=poi[row, k].tolist(),
                creatives=[(0, creative[row, k].tolist())],
                embedding=embedding[row, k].numpy(),
            )
            for k in range(int(filled[row].sum()))
        ]
        s_e = memory.states[row][memory.mask[row]].detach().numpy()
        f, probabilities = numpy_model.reward_model(items, [0] * len(items), s_e)
        close(out.features[row, : len(items)], f)
        for i, tower in enumerate(("pctr_poi", "pctr_creative", "pcvr")):
            close(torch.sigmoid(out.logits[row, : len(items), i]), probabilities[tower])
    others, zq = torch.rand(3, c.list_len, c.list_len - 1), torch.rand(3, c.list_len)
    rate = model.payment_rate(out.features, others.double(), zq.double())
    x = torch.cat([out.features, others.double(), zq.double().unsqueeze(-1)], -1).detach().numpy()
    close(rate, 1 / (1 + np.exp(-numpy_model.mlp("payment.mlp", x)[..., 0])))


def test_padding_changes_nothing(world):
    model, _, histories, memory = world
    alone = model.encode(histories.rows(torch.tensor([2])).map(lambda t: t[:, :1] if t.dim() > 1 else t))
    close(memory.states[2, : alone.states.shape[1]], alone.states[0].detach().numpy())


def test_empty_lists_are_finite(world):
    model, _, _, memory = world
    c = model.config
    zeros = torch.zeros(3, c.list_len, c.poi_code_layers, dtype=torch.int64)
    embedding = torch.zeros(3, c.list_len, c.item_embedding_size, dtype=torch.float64)
    out = model.evaluate(
        memory.mean(),
        zeros,
        zeros[..., : c.creative_code_layers],
        embedding,
        torch.zeros(3, c.list_len, dtype=torch.bool),
    )
    assert torch.isfinite(out.logits).all()
