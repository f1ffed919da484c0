"""Small models and random inputs."""

import torch

from bidslate_train.config import Config
from bidslate_train.model import Histories, Model


def small_config(**changes):
    sizes = {
        "history_len": 4, "list_len": 3, "poi_code_layers": 3, "creative_code_layers": 2, "codebook_size": 5,
        "beam_width": 4, "encoder_layers": 2, "decoder_layers": 2, "hidden_size": 64, "num_heads": 2, "ffn_size": 48,
        "item_embedding_size": 6, "reward_hidden_size": 16, "reward_layers": 1, "reward_heads": 2,
        "context_features": {"hour": 24}, "behavior_features": {"action": 4, "is_ad": 2},
    }  # fmt: skip
    return Config(**(sizes | changes))


def random_model(config, seed=1):
    """A model in float64 whose weights are all random, norms included."""
    torch.manual_seed(seed)
    model = Model(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 1)
            )
    return model


def random_histories(config, lengths, seed=2):
    g = torch.Generator().manual_seed(seed)
    n, b, w = len(lengths), max(lengths), config.codebook_size
    return Histories(
        poi_codes=torch.randint(w, (n, b, config.poi_code_layers), generator=g),
        creative_codes=torch.randint(w, (n, b, config.creative_code_layers), generator=g),
        features={f: torch.randint(-1, s, (n, b), generator=g) for f, s in config.behavior_features.items()},
        context={f: torch.randint(-1, s, (n,), generator=g) for f, s in config.context_features.items()},
        length=torch.tensor(lengths),
    )
