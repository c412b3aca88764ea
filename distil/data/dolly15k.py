"""databricks-dolly-15k (CC BY-SA 3.0): 15,011 instructions, some with a context, answered by people."""

from __future__ import annotations

from dataclasses import dataclass

from distil.data.base import register_data
from distil.data.hf import HfConfig, HubOrDisk


@dataclass
class Dolly15kConfig(HfConfig):
    """Keys of ``data=dolly15k``: those of ``data=hf`` with the set's hub name.

    A local ``path`` is a file or a folder (``train.jsonl``, ``dev.jsonl``, ``test.jsonl``) of either shape:
    the columns ``instruction, context, response`` of the original, or ``instruction, input, output`` of
    MiniLLM's.
    """

    name: str = "dolly15k"
    path: str | None = "databricks/databricks-dolly-15k"


@register_data("dolly15k", Dolly15kConfig)
class Dolly15k(HubOrDisk[Dolly15kConfig]):
    """``data=dolly15k``: its columns are among the well-known ones."""
