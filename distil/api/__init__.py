"""The library: the engine of the runner, called from Python. ``llm_distil`` re-exports what is public here.

Importing this package, or ``DistillationConfig``, imports no torch.
"""
