"""CTranslate2: random weights in its own format, then its own beam search. Prints one JSON line."""

import argparse
import json
import time
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

import work

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def build(directory: Path) -> None:
    """Writes a pre-norm encoder-decoder with RMS norms and learned positions."""
    random = np.random.default_rng(0)
    d = work.WIDTH

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)

    def set_norm(spec) -> None:
        spec.gamma = np.ones(d, np.float32)

    spec = transformer_spec.TransformerSpec.from_config(
        (work.LAYERS, work.LAYERS), work.HEADS, pre_norm=True, activation=common_spec.Activation.SWISH, rms_norm=True
    )
    sources = SPECIAL + [f"s{i}" for i in range(work.INPUT_VOCABULARY - len(SPECIAL))]
    targets = SPECIAL + [f"t{i}" for i in range(work.CODES)]
    spec.encoder.embeddings[0].weight = matrix(len(sources), d) * d**0.5
    spec.decoder.embeddings.weight = matrix(len(targets), d) * d**0.5
    for stack in (spec.encoder, spec.decoder):
        stack.scale_embeddings = False
        stack.position_encodings.encodings = 0.1 * matrix(2048, d) * d**0.5
        set_norm(stack.layer_norm)
        for layer in stack.layer:
            set_norm(layer.self_attention.layer_norm)
            layer.self_attention.linear[0].weight = matrix(3 * d, d)
            layer.self_attention.linear[1].weight = matrix(d, d)
            if stack is spec.decoder:
                set_norm(layer.attention.layer_norm)
                layer.attention.linear[0].weight = matrix(d, d)
                layer.attention.linear[1].weight = matrix(2 * d, d)
                layer.attention.linear[2].weight = matrix(d, d)
            set_norm(layer.ffn.layer_norm)
            layer.ffn.linear_0.weight = matrix(work.FFN, d)
            layer.ffn.linear_1.weight = matrix(d, work.FFN)
    # Random models give nearly flat logits; a wider spread keeps the beams apart.
    spec.decoder.projection.weight = 4 * matrix(len(targets), d)
    spec.register_source_vocabulary(sources)
    spec.register_target_vocabulary(targets)
    config = spec.config
    config.bos_token, config.eos_token, config.unk_token, config.decoder_start_token = "<s>", "</s>", "<unk>", "<s>"
    config.add_source_bos = config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization=None)
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))


def run(arguments: argparse.Namespace) -> None:
    translator = ctranslate2.Translator(
        str(arguments.model),
        device=arguments.device,
        compute_type=arguments.compute,
        inter_threads=1,
        intra_threads=arguments.threads,
    )
    size = (arguments.batch, work.TOKENS)
    requests = np.random.default_rng(1).integers(0, work.INPUT_VOCABULARY - len(SPECIAL), size)
    source = [[f"s{i}" for i in tokens] for tokens in requests]

    def once(steps: int) -> tuple[float, list[list[list[str]]]]:
        """Seconds until the lists of all requests are in host memory, and the lists."""
        start = time.perf_counter()
        result = translator.translate_batch(
            source,
            beam_size=work.BEAMS,
            num_hypotheses=work.BEAMS,
            max_input_length=0,
            max_decoding_length=steps,
            min_decoding_length=steps,
            length_penalty=0,
            return_scores=True,
        )
        return time.perf_counter() - start, [one.hypotheses for one in result]

    once(2)
    samples = []
    for _ in range(arguments.runs):
        seconds, found = once(work.STEPS)
        samples.append(seconds)
        for lists in found:
            assert len({tuple(beam) for beam in lists}) == work.BEAMS, "beams fell together: less work was done"
            assert all(len(beam) == work.STEPS for beam in lists), "a beam is shorter: less work was done"
    about = {"name": f"CTranslate2 {ctranslate2.__version__}", "type": translator.compute_type}
    about |= {"threads": arguments.threads, "device": arguments.device, "batch": arguments.batch}
    print(json.dumps(about | work.summary(samples)))


parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--compute", default="float32", help="float32, int8, or on a GPU float16")
parser.add_argument("--device", default="cpu", help="cpu or cuda")
parser.add_argument("--batch", type=int, default=1, help="requests at a time")
parser.add_argument("--runs", type=int, default=4)
arguments = parser.parse_args()
if not (arguments.model / "model.bin").exists():
    build(arguments.model)
run(arguments)
