#!/usr/bin/env python3
"""A whole allocation in numpy float64: python scripts/reference.py --model DIR --requests FILE

Prints one JSON response a line, or {"id", "error": {"field"}}. It is slow, it takes only well-formed model
directories, and it leaves out the regret audit. It shares nothing with the engine or with the tests' reference:
three readings of the same specification that agree are worth more than one.
"""

import argparse
import itertools
import json
import math
import pathlib

import numpy as np

CTX, SEP, BOI, BOC, SPECIALS = 4, 1, 2, 3, 8
M64 = (1 << 64) - 1
REAL = np.float64  # --float32: what single precision alone does to a response


class Refused(Exception):
    """A request with a fault in the field named."""


def need(condition, field):
    if not condition:
        raise Refused(field)


# ---- files ----


def read_safetensors(path):
    """Name -> array (bfloat16 is the upper half of a float32)."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    arrays = {}
    for name, info in json.loads(raw[8:end]).items():
        if name == "__metadata__":
            continue
        begin, stop = info["data_offsets"]
        data = raw[end + begin : end + stop]
        if info["dtype"] == "BF16":
            array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(REAL)
        elif info["dtype"] in ("F32", "F16"):
            array = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[info["dtype"]]).astype(REAL)
        else:
            array = np.frombuffer(data, {"U8": "<u1", "U16": "<u2", "U64": "<u8"}[info["dtype"]])
        arrays[name] = array.reshape(info["shape"])
    return arrays


class Item:
    def __init__(self, table, row):
        self.id = int(table["item.id"][row])
        self.ad = int(table["item.kind"][row]) == 1
        self.codes = tuple(int(c) for c in table["item.codes"][row])
        self.bid = int(table["item.bid_micros"][row]) if self.ad else 0
        self.reserve = int(table["item.reserve_micros"][row])
        self.embedding = table["item.embedding"][row]
        first, last = (int(x) for x in table["item.creative_offsets"][row : row + 2])
        self.creatives = [
            (int(table["creative.id"][c]), tuple(int(k) for k in table["creative.codes"][c])) for c in range(first, last)
        ]
        self.fault = None
        if "item.active" in table and not table["item.active"][row]:
            self.fault = "inactive"
        if not self.creatives:
            self.fault = "no creative"
        if self.ad and "item.advertiser" in table:
            (who,) = np.nonzero(table["advertiser.id"] == table["item.advertiser"][row])
            if len(who):
                if int(table["advertiser.budget_micros"][who[0]]) == 0:
                    self.fault = "budget spent"
                self.bid = math.floor(self.bid * float(table["advertiser.pacing"][who[0]]))
        if self.ad and self.bid < self.reserve:
            self.fault = "bid below reserve"


class Model:
    def __init__(self, directory):
        directory = pathlib.Path(directory)
        defaults = {
            "rms_eps": 1e-6, "rope_theta": 1e4, "alpha": 1.2, "beta": 2.0, "bid_unit_micros": 1_000_000,
            "billable_unit_micros": 1, "context_features": {}, "behavior_features": {},
        }  # fmt: skip
        self.c = defaults | json.loads((directory / "config.json").read_text())
        index = directory / "model.safetensors.index.json"
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
        self.w = {}
        for shard in shards:
            self.w |= read_safetensors(directory / shard)
        table = read_safetensors(directory / "catalog.safetensors")
        items = [Item(table, row) for row in range(len(table["item.id"]))]
        self.items = {item.id: item for item in items}

    # ---- networks: x is [positions, width] ----

    def linear(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def norm(self, name, x):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.c["rms_eps"]) * self.w[name + ".weight"]

    def heads(self, x, heads):
        return x.reshape(len(x), heads, -1).transpose(1, 0, 2)

    def rotary(self, x):
        """Pairs (i, i + half) as complex numbers, turned by position * theta^(-2 i / head)."""
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(x.shape[1]), self.c["rope_theta"] ** (-np.arange(half) / half))
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], -1).astype(REAL)

    def attention(self, name, x, memory, heads, rotary=False, causal=False):
        q, k, v = (
            self.heads(self.linear(f"{name}.{part}_proj", source), heads)
            for part, source in (("q", x), ("k", memory), ("v", memory))
        )
        if rotary:
            q, k = self.rotary(q), self.rotary(k)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True)) @ v
        return self.linear(f"{name}.o_proj", mixed.transpose(1, 0, 2).reshape(len(x), -1))

    def ffn(self, block, x):
        y = self.norm(f"{block}.ffn_norm", x)
        gate = self.linear(f"{block}.ffn.gate_proj", y)
        return x + self.linear(f"{block}.ffn.down_proj", gate / (1 + np.exp(-gate)) * self.linear(f"{block}.ffn.up_proj", y))

    def encoder_block(self, block, x, heads, rotary):
        y = self.norm(f"{block}.attn_norm", x)
        return self.ffn(block, x + self.attention(f"{block}.attn", y, y, heads, rotary))

    def decoder_block(self, block, x, memory):
        heads = self.c["num_heads"]
        y = self.norm(f"{block}.self_attn_norm", x)
        x = x + self.attention(f"{block}.self_attn", y, y, heads, rotary=True, causal=True)
        y = self.norm(f"{block}.cross_attn_norm", x)
        return self.ffn(block, x + self.attention(f"{block}.cross_attn", y, memory, heads))

    def p(self, layer, code):
        return SPECIALS + layer * self.c["codebook_size"] + code

    def k(self, layer, code):
        return SPECIALS + (self.c["poi_code_layers"] + layer) * self.c["codebook_size"] + code

    def encode(self, request):
        embed = self.w["embed.weight"]
        rows = [embed[CTX] + sum(self.w[f"context_features.{f}.weight"][v] for f, v in request.context.items())]
        for codes, creative, features in request.history:
            rows.append(embed[SEP] + sum(self.w[f"behavior_features.{f}.weight"][v] for f, v in features.items()))
            rows += [embed[self.p(j, c)] for j, c in enumerate(codes)]
            rows += [embed[self.k(j, c)] for j, c in enumerate(creative)]
        x = np.array(rows)
        for l in range(self.c["encoder_layers"]):
            x = self.encoder_block(f"encoder.{l}", x, self.c["num_heads"], True)
        return self.norm("encoder.norm", x)

    def decode_poi(self, codes, memory):
        """h at every position of [BOI] and the codes."""
        tokens = [BOI] + [self.p(t % self.c["poi_code_layers"], c) for t, c in enumerate(codes)]
        x = self.w["embed.weight"][tokens]
        for l in range(self.c["decoder_layers"]):
            x = self.decoder_block(f"decoder.{l}", x, memory)
        return self.norm("decoder.norm", x)

    def head(self, name, layer, h):
        width = self.c["codebook_size"]
        return self.w[name + ".weight"][layer * width : (layer + 1) * width] @ h

    def choose_creative(self, item, h, memory):
        """Index of the creative whose codes the greedy, constrained decoder spells."""
        if len(item.creatives) == 1:
            return 0
        spelled = ()
        for layer in range(self.c["creative_code_layers"]):
            tokens = [BOC] + [self.k(j, c) for j, c in enumerate(spelled)]
            e = self.norm("creative.embed_norm", self.w["embed.weight"][tokens])
            h_normed = np.tile(self.norm("creative.hidden_norm", h), (len(tokens), 1))
            x = self.linear("creative.proj", np.concatenate([h_normed, e], -1))
            x = self.norm("creative.norm", self.decoder_block("creative.block", x, memory))
            logits = self.head("creative_head", layer, x[-1])
            open_codes = sorted({codes[layer] for _, codes in item.creatives if codes[:layer] == spelled})
            spelled += (max(open_codes, key=lambda code: logits[code]),)  # max keeps the first: the lowest code
        return [codes for _, codes in item.creatives].index(spelled)

    def mlp(self, name, x):
        for i in range(4):
            x = self.linear(f"{name}.{i}", np.maximum(x, 0) if i else x)
        return x

    def reward_model(self, items, creatives, memory):
        """f [slots, d_r] and the three probabilities [slots] of a list."""
        if not items:
            return np.zeros((0, 0)), {tower: np.zeros(0) for tower in ("pctr_poi", "pctr_creative", "pcvr")}
        embed = self.w["embed.weight"]
        rows = []
        for item, creative in zip(items, creatives):
            poi = embed[[self.p(j, c) for j, c in enumerate(item.codes)]].sum(0)
            image = embed[[self.k(j, c) for j, c in enumerate(item.creatives[creative][1])]].sum(0)
            rows.append(np.concatenate([poi, image, memory.mean(0), item.embedding.astype(REAL)]))
        x = self.linear("reward.input", np.array(rows)) + self.w["reward.position.weight"][: len(rows)]
        for l in range(self.c["reward_layers"]):
            x = self.encoder_block(f"reward.{l}", x, self.c["reward_heads"], False)
        f = self.norm("reward.norm", x)
        joint = np.concatenate([f, np.tile(f.sum(0), (len(f), 1))], -1)
        towers = ("pctr_poi", "pctr_creative", "pcvr")
        return f, {tower: 1 / (1 + np.exp(-self.mlp(f"reward.towers.{tower}", joint)[:, 0])) for tower in towers}


# ---- requests ----


def whole(x, low=0, high=M64):
    return isinstance(x, int) and not isinstance(x, bool) and low <= x <= high


class Request:
    def __init__(self, model, r):
        c = model.c
        known = (
            "id context history candidates organic policy alpha beta objective payment bid_aggregate bid_scope list_len "
            "beam_width tie_seed squash counterfactual marginal audit"
        ).split()
        for key in r:
            need(key in known, key)
        need(isinstance(r.get("id"), str), "id")
        self.rejected = []
        self.context = self.features(r.get("context", {}), c["context_features"], "context")
        need(isinstance(r.get("history"), list), "history")
        history = [self.behavior(model, entry) for entry in r["history"]]
        self.history = history[max(0, len(history) - c["history_len"]) :]
        candidates = r.get("candidates")
        if candidates == "all":
            candidates = [item.id for item in model.items.values() if item.ad]
        self.ads = self.items(model, candidates, True, "candidates")
        self.organic = self.items(model, r.get("organic", []), False, "organic")
        policy = r.get("policy", {})
        need(set(policy) <= {"max_ads", "min_gap", "first_ad_slot"}, "policy")
        need(all(whole(x) for x in policy.values()), "policy")
        self.max_ads = policy.get("max_ads", math.inf)
        self.min_gap = policy.get("min_gap", 0)
        self.first_ad_slot = policy.get("first_ad_slot", 0)
        self.alpha = self.number(r.get("alpha", c["alpha"]), 16, "alpha")
        self.beta = self.number(r.get("beta", c["beta"]), 1e12, "beta")
        self.squash = self.number(r.get("squash", 1), math.inf, "squash")
        objective = r.get("objective", {})
        need(set(objective) <= {"revenue", "ctr_poi", "ctr_creative", "cvr"}, "objective")
        given = [objective.get("revenue", 1)] + [objective.get(m, 0) for m in ("ctr_poi", "ctr_creative", "cvr")]
        self.m = [self.number(m, math.inf, "objective") for m in given]
        words = {
            "payment": ("network", "gsp", "vcg", "first_price"), "bid_aggregate": ("max", "mean"),
            "bid_scope": ("prefix", "code"), "counterfactual": ("beams", "redecode"), "marginal": (False, True),
            "audit": ("none", "fixed", "reselect", "redecode"),
        }  # fmt: skip
        for key, allowed in words.items():
            need(r.get(key, allowed[0]) in allowed, key)
            setattr(self, key, r.get(key, allowed[0]))
        need(not (self.payment == "vcg" and self.m[0] == 0), "objective")
        self.list_len = r.get("list_len", c["list_len"])
        need(whole(self.list_len, 1, c["list_len"]), "list_len")
        self.beam_width = r.get("beam_width", c["beam_width"])
        need(whole(self.beam_width, 1), "beam_width")
        self.tie_seed = r.get("tie_seed", 0)
        need(whole(self.tie_seed), "tie_seed")

    @staticmethod
    def number(x, high, field):
        need(isinstance(x, (int, float)) and not isinstance(x, bool) and 0 <= x <= high and math.isfinite(x), field)
        return float(x)

    @staticmethod
    def features(values, sizes, field):
        need(isinstance(values, dict) and all(f in sizes and whole(v, 0, sizes[f] - 1) for f, v in values.items()), field)
        return values

    def behavior(self, model, entry):
        c = model.c
        if "item" in entry:
            need(set(entry) <= {"item", "creative", "features"} and entry["item"] in model.items, "history")
            item = model.items[entry["item"]]
            need(entry.get("creative") in dict(item.creatives), "history")
            codes, creative = item.codes, dict(item.creatives)[entry["creative"]]
        else:
            need(set(entry) <= {"codes", "creative_codes", "features"}, "history")
            codes, creative = entry.get("codes"), entry.get("creative_codes")
        for row, layers in ((codes, c["poi_code_layers"]), (creative, c["creative_code_layers"])):
            need(row is not None and len(row) == layers and all(whole(k, 0, c["codebook_size"] - 1) for k in row), "history")
        return codes, creative, self.features(entry.get("features", {}), c["behavior_features"], "history")

    def items(self, model, ids, ads, field):
        need(isinstance(ids, list) and all(whole(i) for i in ids) and len(set(ids)) == len(ids), field)
        need(all(i in model.items and model.items[i].ad == ads for i in ids), field)
        items = [model.items[i] for i in ids]
        self.rejected += [{"item": item.id, "reason": item.fault} for item in items if item.fault]
        return [item for item in items if not item.fault]


# ---- bidding and search ----


def splitmix64(x):
    z = (x + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


class Beam:
    def __init__(self, score=0.0, items=(), zs=(), prefix=(), prefix_z=1.0, done=False):
        self.score, self.items, self.zs = score, items, zs
        self.prefix, self.prefix_z, self.done = prefix, prefix_z, done


class Allocation:
    """One request; `without` is an item that does not exist for it."""

    def __init__(self, model, request, memory=None, without=None, cache=None):
        self.model, self.r = model, request
        self.ads = [item for item in request.ads if item is not without]
        self.organic = [item for item in request.organic if item is not without]
        self.memory = model.encode(request) if memory is None else memory
        self.cache = {} if cache is None else cache
        self.lists = [self.evaluate(beam) for beam in self.search()]

    def hidden(self, codes):
        if codes not in self.cache:
            self.cache[codes] = self.model.decode_poi(codes, self.memory)[-1]
        return self.cache[codes]

    def eligible(self, items):
        """Items that may come next after those chosen."""
        slot, taken = len(items), set(items)
        ad_slots = [i for i, item in enumerate(items) if item.ad]
        may = slot >= self.r.first_ad_slot and len(ad_slots) < self.r.max_ads
        if ad_slots and slot - ad_slots[-1] - 1 < self.r.min_gap:
            may = False
        ads = [item for item in self.ads if item not in taken] if may else []
        return ads + [item for item in self.organic if item not in taken][:1]

    def weight(self, bidders):
        """ln w of a set, or None for w = 0. Bids are integers; their mean is one division."""
        total = sum(item.bid for item in bidders) / len(bidders) if self.r.bid_aggregate == "mean" else max(
            item.bid for item in bidders
        )
        bid = total / self.model.c["bid_unit_micros"]
        terms = ([self.r.alpha * math.log(bid)] if bid > 0 else []) + ([math.log(self.r.beta)] if self.r.beta > 0 else [])
        return np.logaddexp.reduce(terms) if terms else None

    def options(self, beam):
        """code -> (ln z, A(q, k)) over the unmasked codes."""
        layer = len(beam.prefix)
        groups = {}
        for item in self.eligible(beam.items):
            if item.codes[:layer] == beam.prefix:
                groups.setdefault(item.codes[layer], []).append(item)
        weights = {}
        for code, group in groups.items():
            if self.r.bid_scope == "code":
                bidders = [item for item in self.ads + self.organic if item.codes[layer] == code]
            else:
                bidders = group
            ln_w = self.weight(bidders)
            if ln_w is not None:
                weights[code] = ln_w
        if not weights:
            return {}
        codes = tuple(itertools.chain.from_iterable(item.codes for item in beam.items)) + beam.prefix
        logits = self.model.head("poi_head", layer, self.hidden(codes))
        total = np.logaddexp.reduce([logits[code] + ln_w for code, ln_w in weights.items()])
        return {code: (logits[code] + ln_w - total, groups[code]) for code, ln_w in weights.items()}

    def step(self, q, beam):
        """(score, q, k, next beam) of each continuation."""
        options = {} if beam.done else self.options(beam)
        if not options:
            yield beam.score, q, -1, Beam(beam.score, beam.items, beam.zs, done=True)
        for code, (ln_z, group) in options.items():
            score, z, prefix = beam.score + ln_z, beam.prefix_z * math.exp(ln_z), beam.prefix + (code,)
            if len(prefix) < self.model.c["poi_code_layers"]:
                yield score, q, code, Beam(score, beam.items, beam.zs, prefix, z)
            else:
                best = max(group, key=lambda item: (item.bid, splitmix64(self.r.tie_seed ^ item.id)))
                yield score, q, code, Beam(score, beam.items + (best,), beam.zs + (z,))

    def search(self):
        beams = [Beam()]
        for _ in range(self.r.list_len * self.model.c["poi_code_layers"]):
            found = [new for q, beam in enumerate(beams) for new in self.step(q, beam)]
            found.sort(key=lambda new: (-new[0], new[1], new[2]))
            beams = [new[3] for new in found[: self.r.beam_width]]
        return beams

    def evaluate(self, beam):
        codes, beam.creatives = (), []
        for item in beam.items:
            codes += item.codes
            h = self.hidden(codes) if len(item.creatives) > 1 else None
            beam.creatives.append(self.model.choose_creative(item, h, self.memory))
        beam.f, beam.p = self.model.reward_model(beam.items, beam.creatives, self.memory)
        beam.bids = np.array([item.bid / self.model.c["bid_unit_micros"] for item in beam.items])
        m_rev, m_poi, m_cre, m_cvr = self.r.m
        q = beam.p["pctr_poi"]
        beam.reward = float(np.sum(m_rev * beam.bids * q + m_poi * q + m_cre * beam.p["pctr_creative"] + m_cvr * beam.p["pcvr"]))
        return beam

    def best(self, indices):
        return max(indices, key=lambda i: (self.lists[i].reward, self.lists[i].score, -i))

    # ---- payment ----

    def network_rates(self, win):
        logs = np.zeros(self.model.c["list_len"], REAL)
        logs[: len(win.bids)] = np.log1p(win.bids)
        rates = []
        for i, z in enumerate(win.zs):
            x = np.concatenate([win.f[i], np.delete(logs, i), [REAL(z * win.p["pctr_poi"][i])]])
            rates.append(float(1 / (1 + np.exp(-self.model.mlp("payment.mlp", x)[0]))))
        return rates

    def price(self, win, i, rates):
        """Micros before rounding; None is the reserve."""
        item, q = win.items[i], win.p["pctr_poi"]
        if self.r.payment == "network":
            return rates[i] * item.bid
        if self.r.payment == "first_price":
            return float(item.bid)
        if q[i] == 0:
            return None
        if self.r.payment == "gsp":
            after = [j for j in range(i + 1, len(win.items)) if win.items[j].ad]
            return win.items[after[0]].bid * float(q[after[0]] / q[i]) ** self.r.squash if after else None

        def others(beam):
            if item not in beam.items:
                return beam.reward
            j = beam.items.index(item)
            return beam.reward - self.r.m[0] * beam.bids[j] * beam.p["pctr_poi"][j]

        gain = max(others(beam) for beam in self.lists) - others(win)
        return float(gain / (self.r.m[0] * q[i])) * self.model.c["bid_unit_micros"]

    def bill(self, price, item):
        unit = self.model.c["billable_unit_micros"]
        micros = item.reserve if price is None else math.floor(price * (1 + 2.0**-44)) // unit * unit
        return min(max(micros, item.reserve), item.bid)

    def marginal(self, win, item):
        def value(beam):
            return float(np.sum(beam.bids * beam.p["pctr_poi"]))

        if self.r.counterfactual == "redecode":
            again = Allocation(self.model, self.r, self.memory, item, self.cache)
            return value(win) - value(again.lists[again.best(range(len(again.lists)))])
        rest = [i for i, beam in enumerate(self.lists) if item not in beam.items]
        return value(win) - value(self.lists[self.best(rest)]) if rest else None

    def response(self, request_id):
        index = self.best(range(len(self.lists)))
        win = self.lists[index]
        rates = self.network_rates(win)
        slots = []
        for i, item in enumerate(win.items):
            paid = self.bill(self.price(win, i, rates), item) if item.ad else 0
            rate = rates[i] if self.r.payment == "network" else paid / item.bid if item.bid else 0.0
            slots.append({
                "item": item.id, "kind": "ad" if item.ad else "organic", "creative": item.creatives[win.creatives[i]][0],
                "bid_micros": item.bid, "payment_micros": paid, "rate": rate if item.ad else 0.0,
                **{tower: float(p[i]) for tower, p in win.p.items()}, "z": win.zs[i],
                "marginal": self.marginal(win, item) if self.r.marginal else None,
            })  # fmt: skip
        return {
            "id": request_id, "slots": slots, "reward": win.reward, "log_prob": float(win.score), "beam": index,
            "lists": len(self.lists), "rejected": self.r.rejected,
        }  # fmt: skip


def respond(model, line):
    raw = json.loads(line)
    try:
        return Allocation(model, Request(model, raw)).response(raw["id"])
    except Refused as refused:
        return {"id": raw.get("id"), "error": {"field": str(refused)}}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--requests", required=True, type=pathlib.Path)
    arguments.add_argument("--float32", action="store_true", help="compute in single precision")
    arguments = arguments.parse_args()
    global REAL
    REAL = np.float32 if arguments.float32 else np.float64
    model = Model(arguments.model)
    for line in arguments.requests.read_text().splitlines():
        print(json.dumps(respond(model, line)))


if __name__ == "__main__":
    main()
