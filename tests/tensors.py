"""Watches the tensors that a piece of code makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watch(TorchDispatchMode):
    """Notes the size of each tensor that is made or copied, and what each product of matrices is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.fresh: list[int] = []
        """Sizes of those that lie in memory of their own, and not in that of an argument."""
        self.copies: list[int] = []
        """Sizes of what is copied into another tensor."""
        self.products: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.sizes.extend(x.numel() for x in made)
        self.fresh.extend(x.numel() for x in made if place(x) not in given)
        if "copy_" in func.__name__:
            self.copies.append(args[0].numel())
        if "mm" in func.__name__:
            self.products.append(args[-1].dtype)
        return result


def place(x: Tensor) -> int:
    """Where the memory of a tensor begins."""
    return x.untyped_storage().data_ptr()
