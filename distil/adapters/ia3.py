"""IA3 (Liu et al. 2022, arXiv 2205.05638): a learnt factor for each key, value and inner activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distil.adapters.base import Adapter, peft_model, register_adapter
from distil.adapters.targets import check_names, family, has_conv1d, names_of_linear, resolve
from distil.config.schema import PeftConfig, check

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Ia3Config(PeftConfig):
    """Keys of ``peft=ia3``, under the names of ``peft.IA3Config``."""

    name: str = "ia3"
    target_modules: Any = None
    """Module names: keys, values and the second feed-forward product. null: by family."""
    feedforward_modules: Any = None
    """Those of them whose input is scaled, not their output. null: by family."""
    modules_to_save: list[str] | None = None
    """Modules trained whole and saved beside the adapter."""

    def __post_init__(self) -> None:
        check_names("peft.target_modules", self.target_modules)
        check_names("peft.feedforward_modules", self.feedforward_modules)
        check(
            (self.target_modules is None) == (self.feedforward_modules is None),
            f"peft.target_modules={self.target_modules} with peft.feedforward_modules="
            f"{self.feedforward_modules}: they belong together, give both or neither.",
        )


@register_adapter("ia3", Ia3Config)
class Ia3(Adapter[Ia3Config]):
    """Learnt factors: hardly any parameters, no extra product."""

    peft_type = "IA3"
    usual_rates = (1e-4, 0.5)

    def wrap(
        self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """``student`` with a factor at each target. Raises InputError for a family that has no known ones."""
        import peft
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as INNER
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN

        targets, inner = self.config.target_modules, self.config.feedforward_modules
        if targets is None:
            kind = family(student)
            check(
                kind in KNOWN,
                f"peft=ia3: no default targets are known for {kind}. Name its key, value and second "
                "feed-forward modules: peft.target_modules=[…] peft.feedforward_modules=[…]. Its linear "
                f"modules: {', '.join(names_of_linear(student))}.",
            )
            targets, inner = KNOWN[kind], INNER[kind]
        targets = resolve(student, targets, {})
        keys = self.keys("target_modules", "feedforward_modules")
        return peft_model(
            student,
            peft.IA3Config,
            target_modules=targets,
            feedforward_modules=inner,
            fan_in_fan_out=has_conv1d(student),
            **keys,
        )
