"""The model of the engine in PyTorch, twice: as a good engineer would serve it, and as most would write it first.

Both read a model directory of the engine and take their definitions of the model from `bidslate_train`.
"""
