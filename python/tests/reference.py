"""The repository's numpy reading of the model, scripts/reference.py, as a module."""

import importlib.util
from pathlib import Path

import numpy as np

_PATH = Path(__file__).resolve().parents[2] / "scripts" / "reference.py"


def load():
    spec = importlib.util.spec_from_file_location("bidslate_reference", _PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load()


class NumpyModel(REFERENCE.Model):
    """The reference over a PyTorch model's weights, without files."""

    def __init__(self, model):
        c = model.config
        self.c = {name: getattr(c, name) for name in c.__dataclass_fields__}
        self.w = {name: t.detach().numpy().astype(np.float64) for name, t in model.state_dict().items()}
        self.items = {}
