"""The student's own base as its teacher: the same weights with their adapter off, at no extra memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from distil.engine.modes import eval_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adapter_off(student: PreTrainedModel) -> PreTrainedModel:
    """``student`` with its adapter off, as a model that does all that is asked of a teacher."""
    return cast("PreTrainedModel", AdapterOff(student))


class AdapterOff(nn.Module):
    """A student wrapped by PEFT, seen without its adapter and in eval mode; the student itself is untouched.

    Its forward takes and gives what that of the base does. No gradient flows: call it under ``no_grad``.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def get_base_model(self) -> nn.Module:
        """The transformers model inside."""
        wrapped: Any = self.student
        base: nn.Module = wrapped.get_base_model()
        return base

    @property
    def config(self) -> Any:
        """Of the base."""
        return self.get_base_model().config

    @property
    def hf_device_map(self) -> Any:
        """Where the base lies, if it was placed while loading; else None."""
        return getattr(self.get_base_model(), "hf_device_map", None)

    @property
    def generation_config(self) -> Any:
        """Of the base."""
        return self.get_base_model().generation_config

    def get_output_embeddings(self) -> Any:
        """Of the base."""
        base: Any = self.get_base_model()
        return base.get_output_embeddings()

    def num_parameters(self, only_trainable: bool = False) -> int:
        """None of its own: they are the student's."""
        return 0

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The base's own output."""
        wrapped: Any = self.student
        with eval_mode(self.student), wrapped.disable_adapter():
            return wrapped(*args, **inputs)
