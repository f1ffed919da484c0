"""The model in PyTorch that the engine is timed beside: both versions give the engine's answers, or no figure.

The worlds are tiny, and made of what breaks searches: equal bids, items that share all their codes, lists that end
early.
"""

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import toy_config, write_catalog
from worlds import random_model

import torch_ega
from bidslate_train import allocation, engine, export
from bidslate_train.lines import Refused
from ega import check, ops, search, timing
from ega.answer import Answer, Lists
from ega.asked import World, plain
from ega.batch import Nodes
from ega.candidates import candidates, ln_w, splitmix64
from ega.engine import Engine
from ega.naive import Naive
from ega.strong import Options, Recorded, Strong

F32 = Options(torch.float32, torch.device("cpu"))
OPTIONS = [
    {},
    {"candidates": "all", "policy": {}},
    {"organic": [], "history": []},
    {"candidates": [100], "organic": [], "policy": {}},
    {"candidates": [], "beam_width": 9},
    {"candidates": [], "organic": []},
    {"candidates": [103, 106, 109], "organic": [], "policy": {}},
    {"list_len": 2, "beam_width": 1},
    {"alpha": 0, "beta": 0, "policy": {}},
    {"alpha": 2.5, "beta": 0.5, "beam_width": 8},
    {"policy": {"max_ads": 1}, "tie_seed": 2**64 - 1},
    {"policy": {"min_gap": 2, "first_ad_slot": 2}},
    {"objective": {"revenue": 0.3, "ctr_poi": 1, "ctr_creative": 0.5, "cvr": 2}},
]


def request(i, options, rng):
    ads = [int(item) for item in rng.permutation(np.arange(100, 140, 3))]
    organic = [100 + int(i) for i in rng.permutation(40) if i % 3][:4]
    history = [
        {"item": int(i), "creative": 0, "features": {"action": 1, "recency": 2}}
        for i in 100 + rng.integers(0, 40, 1 + i % 4)
    ]
    policy = {"max_ads": 3, "min_gap": 1, "first_ad_slot": 1}
    line = {"id": f"{i}", "context": {"hour": i}, "history": history, "candidates": ads, "organic": organic}
    return line | {"policy": policy, "tie_seed": i} | options


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model directory, requests, and what both versions answer."""
    path = tmp_path_factory.mktemp("peers")
    config = toy_config(codebook_size=2, list_len=4, beam_width=6, billable_unit_micros=1000)
    # Weights that differ enough for the lists to.
    model = random_model(config, seed=4).float()
    export.save(model, path)
    write_catalog(path / "catalog.safetensors", config, items=40)
    spread_bids(path / "catalog.safetensors")
    rng = np.random.default_rng(5)
    lines = [request(i, options, rng) for i, options in enumerate(OPTIONS)]
    (path / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    world = World.of(path)
    requests = world.requests(path / "requests.jsonl")
    naive = Naive(world, model, requests, torch.float32, torch.device("cpu"))
    return path, world, model, requests, [naive.answer(row) for row in range(len(requests))]


def spread_bids(path):
    """Three bids among the ads, 0 among them, so that many are equal; and reserve prices, one above its bid."""
    from safetensors.numpy import load_file, save_file

    columns = load_file(path)
    ads = np.flatnonzero(columns["item.kind"] == 1)
    columns["item.bid_micros"][ads] = np.array([0, 700_001, 2_000_000], np.uint64)[np.arange(len(ads)) % 3]
    columns["item.reserve_micros"][ads[1]] = 700_000
    columns["item.reserve_micros"][ads[4]] = 900_000
    save_file(columns, path)


def strong_answers(made, batch=4, options=F32):
    _, world, model, requests, _ = made
    return torch_ega.strong_answers(Strong(world, model, requests, batch, options))


def agree(found):
    return found.requests == len(OPTIONS) == found.winners and found.lists == found.common_lists


def test_strong_and_naive_find_the_same_lists(made):
    naive = made[-1]
    strong = strong_answers(made)
    found = check.compare(strong, naive)
    assert agree(found) and found.holds(torch.float32)
    assert found.payment_micros <= 1000  # a rate in f32, and the next billable unit
    for own, other in zip(strong, naive, strict=True):
        torch.testing.assert_close(own.lists.log_prob, other.lists.log_prob, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(own.lists.rewards, other.lists.rewards, rtol=1e-4, atol=1e-5)
    lengths = {len(shown[0]) for one in strong for shown in one.lists.shown}
    assert lengths == {0, 1, 2, 3, 4}  # lists that end early are there
    assert {len(one.lists.shown) for one in strong} >= {1, 6, 8}


@pytest.mark.parametrize("batch", [1, len(OPTIONS)])
def test_the_batch_changes_nothing(made, batch):
    assert agree(check.compare(strong_answers(made, batch), strong_answers(made)))


class StandInGraph:
    """A CUDA graph without CUDA: a replay runs the pipeline again, into the tensors of the recording."""

    recorded: Recorded

    def replay(self):
        again = self.recorded.pipeline(self.recorded.batch)
        for own, new in zip(flat(self.recorded.found), flat(again), strict=True):
            own.copy_(new)


def flat(found):
    return [*found[:-1], *found[-1]]


def test_a_recorded_run_follows_each_batch(made, monkeypatch):
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: SimpleNamespace(wait_stream=lambda other: None))
    for name in ("stream", "graph"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda what: contextlib.nullcontext())
    monkeypatch.setattr("torch.cuda.CUDAGraph", StandInGraph)
    _, world, model, requests, _ = made
    strong = Strong(world, model, requests, 3, Options(torch.float32, torch.device("cpu"), graph=True))
    StandInGraph.recorded = strong._run
    assert agree(check.compare(torch_ega.strong_answers(strong), strong_answers(made)))


def test_a_gpu_is_timed_by_its_events_and_by_the_host(monkeypatch):
    class Event:
        done = 0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = len(runs)

        def synchronize(self):
            Event.done += 1

        def elapsed_time(self, end):
            return 1000.0 * (end.at - self.at)

    runs = []
    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: runs.append("waited"))
    every = [lambda i=i: runs.append(i) for i in range(3)]
    times = timing.measure(every, 1, 2, torch.device("cuda"))
    assert runs == [0, 1, "waited", 0, 1, 2]
    assert times.device == [1.0] * 3 and len(times.wall) == Event.done == 3


def test_the_winner_pays_what_golden_says(made):
    _, world, model, requests, naive = made
    for row, line in enumerate(requests.lines):
        histories = requests.histories.rows(torch.tensor([row]))
        length = int(histories.length[0])
        memory = model.encode(histories.map(lambda t, n=length: t[:, :n] if t.dim() > 1 else t))
        outcome = allocation.allocate(
            model, memory, allocation.Ask.of(line, world.catalog, world.config), world.catalog
        )
        assert tuple(item.id for item in outcome.beams[outcome.winner].items) == naive[row].shown[0]
        gaps = np.subtract(outcome.payments, naive[row].payments)
        assert np.abs(gaps).max(initial=0) <= 1000


def test_bf16_runs_and_mostly_agrees(made):
    options = Options(torch.bfloat16, torch.device("cpu"))
    found = check.compare(strong_answers(made, options=options), made[-1])
    assert found.share >= 0.6 and found.common_lists > 0.5 * found.lists


def built():
    found = os.environ.get("BIDSLATE", str(engine.REPOSITORY / "target/release/bidslate"))
    return Path(found).exists()


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_the_engine_finds_the_same_lists(made):
    path = made[0]
    theirs = Engine(path).answers(path / "requests.jsonl", lists=True)
    for ours in (strong_answers(made), made[-1]):
        found = check.compare(ours, theirs)
        assert agree(found), found
        assert found.payment_micros <= 1000
    winners = Engine(path).answers(path / "requests.jsonl", lists=False)
    assert [one.shown for one in winners] == [one.shown for one in theirs]


def forgets_used_ads(nodes, node, used, right=search.best_unused):
    return right(nodes, node, torch.full_like(used, -1))


def forgets_the_organic_order(batch, beams, item_codes, layer, right=search.next_organic):
    beams.organics = beams.organics * 0
    return right(batch, beams, item_codes, layer)


def masks_no_beam(ancestors, dtype):
    shape = (len(ancestors), 1, ancestors.shape[1], ancestors[0].numel())
    return torch.zeros(shape, dtype=dtype)


BUGS = [
    ("ega.search.best_unused", forgets_used_ads),
    ("ega.search.next_organic", forgets_the_organic_order),
    ("ega.decoder.ancestors_bias", masks_no_beam),
    ("ega.candidates.splitmix64", lambda x: np.zeros(x.shape, np.int64)),
    ("ega.strong.winners", lambda rewards, score: torch.zeros(len(rewards), dtype=torch.int64)),
    ("ega.creative._greedy", lambda logits, codes, open_rows: codes[..., 0]),
]


@pytest.mark.parametrize(("place", "bug"), BUGS, ids=[place for place, _ in BUGS])
def test_planted_bugs_are_caught(made, monkeypatch, place, bug):
    monkeypatch.setattr(place, bug)
    found = check.compare(strong_answers(made), made[-1])
    assert found.different and not found.holds(torch.float32)


def test_what_is_left_behind_a_node_by_brute_force(made):
    _, world, _, requests, _ = made
    ask = allocation.Ask.of(requests.lines[1], world.catalog, world.config)
    tables = candidates(ask, world.catalog, world.config.bid_unit_micros)
    rng = np.random.default_rng(6)
    for level in tables.levels:
        nodes = Nodes(*(torch.from_numpy(getattr(level, f))[None] for f in Nodes.__dataclass_fields__))
        for _ in range(20):
            used = rng.permutation(len(tables.ad_row))[:3]
            used[rng.integers(3)] = -1
            node = torch.arange(len(level.code))[None, None]
            found = search.best_unused(nodes, node, torch.from_numpy(used)[None, None])[0, 0].tolist()
            for n, ad in enumerate(found):
                left = [a for a in np.flatnonzero(level.node == n) if a not in used]
                best = max(left, key=lambda a: (tables.ad_bid[a], tables.ad_hash[a]), default=-1)
                assert ad == best


def test_bids_and_ties_are_those_of_the_trainer():
    ids = np.array([0, 1, 2**64 - 1], np.uint64)
    signed = [allocation.splitmix64(int(i)) - 2**63 for i in ids]
    assert splitmix64(ids).tolist() == signed
    assert ln_w(np.array([0.0, 1.5]), 1.2, 2.0).tolist() == pytest.approx(
        [np.log(2), np.log(1.5**1.2 + 2)], abs=1e-14
    )
    assert ln_w(np.array([0.0, 3.0]), 0.0, 0.0).tolist() == [-np.inf, 0.0]


def test_what_neither_version_knows_is_refused(made):
    path, world, _, _, _ = made
    line = json.loads((path / "requests.jsonl").read_text().splitlines()[0])
    with pytest.raises(Refused, match="bid_scope"):
        plain(line | {"bid_scope": "code"}, world.catalog)


def lists(*rows):
    shown = [((item,), (0,)) for item, _, _ in rows]
    return Lists(shown, [score for _, score, _ in rows], [reward for _, _, reward in rows])


def answer(item, found):
    return Answer(((item,), (0,)), [0], found)


@pytest.mark.parametrize(("device", "times"), [("cpu", 2), ("cuda:0", 1)])
def test_stages_of_a_batch_count_once_on_a_gpu(monkeypatch, tmp_path, device, times):
    micros = {"resolve_us": 11000, "encode_us": 100, "search_us": 10, "creative_us": 1, "reward_us": 0}

    def allocate(self, requests, *more):
        assert more == ("--timings", "--batch", 2, "--threads", 1 if device == "cpu" else 2)
        lines = requests.read_text().splitlines()
        return [{"timings": {**micros, "payment_us": 100_000}} for _ in lines]

    monkeypatch.setattr(Engine, "_allocate", allocate)
    path = tmp_path / "requests.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
    found = Engine(tmp_path, device).seconds(path, batch=2, runs=3, warm_up=1)
    alone = 2 * (11000 + 100_000) * 1e-6
    assert found == pytest.approx([alone + times * 111e-6] * 3)


def test_near_ties_are_told_from_differences():
    a = lists((1, -1.0, 2.0), (2, -2.0, 1.99999), (3, -3.0, 0.5))
    swapped = lists((1, -1.0, 1.99999), (2, -2.0, 2.0), (3, -3.0, 0.5))
    cut = lists((1, -1.0, 2.0), (2, -2.0, 1.99999), (4, -3.0001, 9.0))
    inside = lists((1, -1.0, 2.0), (4, -2.0, 1.0), (3, -3.0, 0.5))

    def compared(own, ours, other, theirs):
        return check.compare([answer(own, ours)], [answer(other, theirs)])

    assert compared(1, a, 1, a).near_ties == 0
    for other, theirs in ((2, swapped), (4, cut), (1, cut)):
        found = compared(1, a, other, theirs)
        assert found.near_ties == 1 and found.holds(torch.float32)
    assert not compared(1, a, 3, a).holds(torch.float32)
    assert not compared(1, a, 1, inside).holds(torch.float32)
    assert not compared(1, a, 1, lists((1, -1.0, 2.0))).holds(torch.float32)
    few = check.compare([answer(1, None)] * 19, [answer(1, None)] * 18 + [answer(2, None)])
    assert few.share == pytest.approx(18 / 19) and not few.holds(torch.bfloat16)


def test_bf16_is_held_against_f32_where_both_round():
    true = [answer(1, None)] * 128

    def misses(*places):
        return [answer(2 if i in places else 1, None) for i in range(128)]

    # As far from f32 as the other, though not on the same requests: less than 95 % in common.
    ours, theirs = misses(*range(8)), misses(*range(8, 16))
    found = check.compare(ours, theirs)
    assert found.share == 112 / 128 and not found.holds(torch.bfloat16)
    found.exact = check.against(ours, theirs, true)
    assert asdict(found.exact) == {
        "requests": 128,
        "ours": 120,
        "theirs": 120,
        "only_ours": 8,
        "only_theirs": 8,
    }
    assert found.holds(torch.bfloat16)
    # Twice as many would be chance in one case of twenty or less, and a few requests say nothing.
    found.exact = check.against(misses(*range(24)), misses(*range(120, 128)), true)
    assert not found.holds(torch.bfloat16)
    found.exact = check.against(ours, theirs, true[:31])
    assert found.exact.requests == 31 and not found.holds(torch.bfloat16)


@pytest.mark.skipif(not hasattr(torch.library, "custom_op"), reason="needs torch 2.4")
def test_a_product_with_sums_in_f32_leaves_compiled_code_in_one_piece():
    x, gate_up, down = (torch.randn(shape).bfloat16() for shape in ((2, 3, 8), (32, 8), (8, 16)))
    whole = torch.compile(ops.swiglu, backend="aot_eager", fullgraph=True)
    found = whole(x, gate_up, down)
    assert found.dtype == torch.float32
    assert torch.equal(found, ops.swiglu(x, gate_up, down))
    hidden = torch.nn.functional.linear(x, gate_up).chunk(2, -1)
    product = torch.nn.functional.silu(hidden[0]) * hidden[1]
    assert torch.equal(found, torch.nn.functional.linear(product.float(), down.float()))


def test_percentiles_are_samples():
    times = timing.Times(8, [0.001 * i for i in range(100, 0, -1)])
    facts = times.facts()
    assert [facts[f"p{p}_ms"] for p in timing.PERCENTILES] == pytest.approx([50, 95, 99])
    assert facts["requests_per_second"] == pytest.approx(160)
    assert timing.Times(1, [3.0]).percentile(99) == 3.0


def run_program(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["torch_ega.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        torch_ega.main()
    return ended.value.code


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_the_program_gives_a_ratio_only_where_answers_agree(made, monkeypatch, tmp_path, capsys):
    arguments = (
        "--model",
        made[0],
        "--batch",
        3,
        "--runs",
        2,
        "--warm-up",
        1,
        "--out",
        tmp_path / "out.json",
    )
    assert run_program(monkeypatch, *arguments, "--naive", 2) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["ratios"]) == {"strong, batch 3"}
    assert all(len(found["times"][name][0]["wall_ms"]) == 2 for name in ("bidslate", "strong", "naive"))
    monkeypatch.setattr("ega.search.best_unused", forgets_used_ads)
    assert run_program(monkeypatch, *arguments) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert not found["ratios"] and found["times"]["strong"]
    assert "too few: no ratios" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(made, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_program(monkeypatch, "--model", made[0], "--device", "cuda") == 2
    assert "sees no GPU" in capsys.readouterr().err
