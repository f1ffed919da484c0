"""ONNX Runtime: the same model as two graphs with its fused operators, beam search on the host. Prints one JSON line."""

import argparse
import json
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import work

D, H, L, N, B = work.WIDTH, work.HEADS, work.LAYERS, work.TOKENS, work.BEAMS
MICROSOFT = "com.microsoft"
random = np.random.default_rng(0)


def matrix(rows: int, columns: int) -> np.ndarray:
    """In the layout of MatMul: [in, out]."""
    return (random.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)


class Graph:
    """Nodes and constants with numbered names."""

    def __init__(self) -> None:
        self.nodes, self.constants, self.names = [], [], 0

    def constant(self, value) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: list[str] | int = 1, domain: str = "", **attributes):
        """Adds a node; its output's name, or their list where there are several."""
        if isinstance(outputs, int):
            names = [f"value{self.names + i}" for i in range(outputs)]
            self.names += outputs
        else:
            names = outputs
        self.nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def norm(self, x: str) -> str:
        return self.node("SimplifiedLayerNormalization", x, self.constant(np.ones(D, np.float32)), axis=-1, epsilon=1e-6)

    def linear(self, x: str, inputs: int, outputs: int, scale: float = 1) -> str:
        return self.node("MatMul", x, self.constant(scale * matrix(inputs, outputs)))

    def reshape(self, x: str, shape: list[int], **attributes) -> str:
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)), **attributes)

    def attention(self, *inputs: str, **attributes):
        return self.node("MultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=H, **attributes)

    def queries_keys_values(self, x: str) -> list[str]:
        return self.node("Split", self.linear(self.norm(x), D, 3 * D), outputs=3, axis=-1)

    def feed_forward(self, x: str) -> str:
        hidden = self.node("Gelu", self.linear(self.norm(x), D, work.FFN), domain=MICROSOFT)
        return self.node("Add", x, self.linear(hidden, work.FFN, D))

    def session(self, inputs: list, outputs: list, threads: int) -> ort.InferenceSession:
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 9
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def value(name: str, kind: int, shape: list):
    return helper.make_tensor_value_info(name, kind, shape)


def encoder(threads: int) -> ort.InferenceSession:
    """Token ids to the keys and values that each decoder layer attends to."""
    graph = Graph()
    table = graph.constant(random.standard_normal((work.INPUT_VOCABULARY, D)).astype(np.float32))
    x = graph.node("Gather", table, "ids")
    for _ in range(L):
        x = graph.node("Add", x, graph.linear(graph.attention(*graph.queries_keys_values(x)), D, D))
        x = graph.feed_forward(x)
    x = graph.norm(x)
    outputs = []
    for layer in range(L):
        for part in "kv":
            heads = graph.reshape(graph.linear(x, D, D), [1, N, H, work.HEAD_SIZE])
            name = f"cross_{part}{layer}"
            graph.node("Transpose", heads, outputs=[name], perm=[0, 2, 1, 3])
            outputs.append(value(name, TensorProto.FLOAT, [1, H, N, work.HEAD_SIZE]))
    return graph.session([value("ids", TensorProto.INT64, [1, N])], outputs, threads)


def decoder(threads: int) -> ort.InferenceSession:
    """One step of all beams: reorders the cache, decodes, and picks the best continuations."""
    graph = Graph()
    inputs = [
        value("token", TensorProto.INT64, [B]),
        value("parent", TensorProto.INT64, [B]),
        value("score", TensorProto.FLOAT, [B, 1]),
    ]
    outputs = [value("best_score", TensorProto.FLOAT, [B]), value("best", TensorProto.INT64, [B])]
    table = graph.constant(random.standard_normal((work.CODES, D)).astype(np.float32))
    x = graph.node("Unsqueeze", graph.node("Gather", table, "token"), graph.constant(np.array([1], np.int64)))
    for layer in range(L):
        past = [graph.node("Gather", f"past_{part}{layer}", "parent", axis=0) for part in "kv"]
        present = [f"present_{part}{layer}" for part in "kv"]
        attended = graph.attention(*graph.queries_keys_values(x), "", "", "", *past, outputs=[f"self{layer}", *present])
        x = graph.node("Add", x, graph.linear(attended[0], D, D))
        # The beams are rows of one query block: they share the encoder's keys and values.
        queries = graph.reshape(graph.linear(graph.norm(x), D, D), [1, B, D])
        crossed = graph.attention(queries, f"cross_k{layer}", f"cross_v{layer}")
        x = graph.node("Add", x, graph.reshape(graph.linear(crossed, D, D), [B, 1, D]))
        x = graph.feed_forward(x)
        for part in "kv":
            inputs.append(value(f"past_{part}{layer}", TensorProto.FLOAT, [B, H, "t", work.HEAD_SIZE]))
            inputs.append(value(f"cross_{part}{layer}", TensorProto.FLOAT, [1, H, N, work.HEAD_SIZE]))
            outputs.append(value(f"present_{part}{layer}", TensorProto.FLOAT, [B, H, "t1", work.HEAD_SIZE]))
    # Random models give nearly flat logits; a wider spread keeps the beams apart.
    logits = graph.reshape(graph.linear(graph.norm(x), D, work.CODES, scale=4), [B, work.CODES])
    scores = graph.node("Add", graph.node("LogSoftmax", logits, axis=-1), "score")
    flat = graph.reshape(scores, [-1])
    graph.node("TopK", flat, graph.constant(np.array([B], np.int64)), outputs=["best_score", "best"])
    return graph.session(inputs, outputs, threads)


def search(encode: ort.InferenceSession, decode: ort.InferenceSession, ids: np.ndarray) -> np.ndarray:
    """The codes of the best beams, [B, STEPS]."""
    wrap = ort.OrtValue.ortvalue_from_numpy
    encoded = [output.name for output in encode.get_outputs()]
    decoded = [output.name for output in decode.get_outputs()]
    feeds = dict(zip(encoded, encode.run_with_ort_values(encoded, {"ids": wrap(ids)})))
    empty = np.zeros((B, H, 0, work.HEAD_SIZE), np.float32)
    feeds.update({f"past_{part}{layer}": wrap(empty) for layer in range(L) for part in "kv"})
    token, parent = np.zeros(B, np.int64), np.arange(B)
    score = np.full((B, 1), -1e9, np.float32)
    score[0] = 0
    codes = np.zeros((B, 0), np.int64)
    for _ in range(work.STEPS):
        feeds["token"], feeds["parent"], feeds["score"] = map(wrap, (token, parent, score))
        step = dict(zip(decoded, decode.run_with_ort_values(decoded, feeds)))
        best = step["best"].numpy()
        score = step["best_score"].numpy().reshape(B, 1)
        parent, token = best // work.CODES, best % work.CODES
        codes = np.concatenate([codes[parent], token[:, None]], axis=1)
        for layer in range(L):
            for part in "kv":
                feeds[f"past_{part}{layer}"] = step[f"present_{part}{layer}"]
    return codes


parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--runs", type=int, default=4)
arguments = parser.parse_args()
encode, decode = encoder(arguments.threads), decoder(arguments.threads)
ids = random.integers(0, work.INPUT_VOCABULARY, (1, N)).astype(np.int64)
samples = []
for run in range(arguments.runs + 1):
    start = time.perf_counter()
    codes = search(encode, decode, ids)
    # The first run is the warm-up.
    if run:
        samples.append(time.perf_counter() - start)
    assert len(np.unique(codes, axis=0)) == B, "beams fell together: less work was done"
name = f"ONNX Runtime {ort.__version__}"
print(json.dumps({"name": name, "type": "float32", "threads": arguments.threads, **work.summary(samples)}))
