"""Whether a teacher and a student can be distilled, and what they say about token ids."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distil.api.config import DistillationConfig
from distil.api.errors import ArgumentError, require
from distil.api.rows import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

LOAD = "AutoModelForCausalLM.from_pretrained"

QUANTISED = """Load the student in 4 bits first:
    AutoModelForCausalLM.from_pretrained(name, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
or take peft_type="lora"."""


def check_model(model: Any, role: str) -> None:
    """Raise ArgumentError unless ``model`` is a causal language model of transformers (or PEFT's wrapper)."""
    from torch import nn

    if isinstance(model, str):
        raise ArgumentError(f"{role} is the name {model!r}, not a model. Give {LOAD}({model!r}).")
    name = type(model).__name__
    require(
        isinstance(model, nn.Module) and hasattr(model, "config"),
        f"{role} is a {name}, not a model of transformers. Give what {LOAD}(…) returns.",
    )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    can = getattr(inner, "can_generate", None)
    causal = callable(can) and bool(can()) and not getattr(inner.config, "is_encoder_decoder", False)
    require(
        causal,
        f"{role} is a {type(inner).__name__}, which is no causal language model: it does not predict the "
        f"next token. Load it with {LOAD}(…), or choose a model that has such a head.",
    )


def broken_weights(models: Mapping[str, PreTrainedModel]) -> str:
    """A sentence on each of these models, by the name of its argument, whose weights are no numbers."""
    import torch

    said = []
    for role, model in models.items():
        known = ((name, p) for name, p in model.named_parameters() if p.is_floating_point() and not p.is_meta)
        bad = next((name for name, p in known if not bool(torch.isfinite(p).all())), None)
        if bad is not None:
            said.append(f"The weights of {role} hold nan or inf ({bad}): load it again, from a whole file.")
    return " ".join(said)


def warn_of_no_numbers(scores: Mapping[str, float], models: Mapping[str, PreTrainedModel]) -> None:
    """Say so where scores are no numbers, and why where it can be told."""
    bad = [f"{name}={value}" for name, value in scores.items() if not math.isfinite(value)]
    if bad:
        logger.warning("%s. %s", ", ".join(bad), broken_weights(models) or "All weights are finite.")


def check_apart(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Raise ArgumentError where training the student would change the teacher."""
    theirs = {p.data_ptr(): name for name, p in teacher.named_parameters()} if teacher is not student else {}
    shared = [name for name, p in student.named_parameters() if p.data_ptr() in theirs and p.data_ptr()]
    what = "are one object" if teacher is student else f"share {', '.join(shared[:3])}"
    require(
        teacher is not student and not shared,
        f"teacher_model and student_model {what}, which would learn from itself as it changes. "
        "Load it twice.",
    )


def warn_of_order(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Say so where the student is the larger of the two."""
    counts = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    if counts[0] < counts[1] and not any(map(quantised_bits, (teacher, student))):
        logger.warning(
            "The teacher has %s parameters, the student %s: were they given the other way round?",
            *(f"{count:,}" for count in counts),
        )


def check_config(config: Any) -> None:
    """Raise ArgumentError unless ``config`` is a DistillationConfig."""
    if isinstance(config, DistillationConfig):
        return
    how = "DistillationConfig.from_dict(config)" if isinstance(config, dict) else "DistillationConfig(…)"
    raise ArgumentError(f"config is a {type(config).__name__}: give {how}.")


def check_quantised(student: PreTrainedModel, config: DistillationConfig) -> None:
    """Raise ArgumentError where the student's weights and the adapter do not go together."""
    bits = quantised_bits(student)
    if config.use_peft and config.peft_type.lower() == "qlora":
        require(bits is not None, f'peft_type="qlora" with a student whose weights are whole. {QUANTISED}')
    if bits is not None:
        require(
            config.use_peft,
            f"student_model holds its weights in {bits} bits, so they cannot be trained. Train an adapter: "
            'DistillationConfig(use_peft=True, peft_type="qlora", …), or load the student without a '
            "quantization_config.",
        )
        if bits == 4:
            from distil.models.quantize import settle

            settle(student, "student_model", "Load it in 8 bits, or whole.")


def check_trainable(student: PreTrainedModel) -> None:
    """Raise ArgumentError for a student of which nothing would be trained."""
    require(
        any(p.requires_grad for p in student.parameters()),
        "student_model has no parameter that takes a gradient. Of a model: student.requires_grad_(True). A "
        "finished prompt or prefix, as load_student brings it, is not trained any further: start a new one.",
    )


def quantised_bits(model: PreTrainedModel) -> int | None:
    """4 or 8 where bitsandbytes holds the weights of ``model``, else None."""
    if getattr(model, "is_loaded_in_4bit", False):
        return 4
    return 8 if getattr(model, "is_loaded_in_8bit", False) else None


def quantisation(model: PreTrainedModel | None) -> dict[str, Any]:
    """How a student's weights are held, in the keys of the runner's ``peft=qlora``; empty: they are whole."""
    bits = None if model is None else quantised_bits(model)
    if model is None or bits is None:
        return {}
    if bits == 8:
        return {"bits": 8}
    held: Any = model.config.quantization_config
    return {
        "bits": 4,
        "bnb_4bit_quant_type": held.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": held.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": str(held.bnb_4bit_compute_dtype).removeprefix("torch."),
    }


def half_precision(model: PreTrainedModel | None) -> dict[str, str]:
    """The ``dtype`` key of a run's model where its weights are not float32."""
    dtype = str(getattr(model, "dtype", "float32")).removeprefix("torch.")
    return {"dtype": dtype} if dtype in ("bfloat16", "float16") else {}


def check_length(
    rows: Sequence[Mapping[str, Any]], name: str, max_length: int | None, *models: PreTrainedModel
) -> None:
    """Raise ArgumentError for rows that are longer than a model's table of positions (GPT-2).

    A rotary model has none: there it is a warning that it was not trained at such a length.
    """
    from distil.engine.anatomy import position_limit, trained_length

    longest = max(len(row["input_ids"]) for row in rows)
    limit = min((n for n in map(position_limit, models) if n is not None), default=None)
    asked = "" if max_length is None else f"max_length={max_length}: "
    require(
        limit is None or longest <= limit,
        f"{asked}{name} has a row of {longest} tokens, but the model has {limit} positions. "
        f"Give max_length={limit}.",
    )
    trained = min((n for n in map(trained_length, models) if n is not None), default=longest)
    if longest > trained:
        logger.warning(
            "%s%s has a row of %d tokens, but the models were made for %d. max_length=%d cuts longer ones.",
            asked,
            name,
            longest,
            trained,
            trained,
        )


def token_ids(*models: PreTrainedModel) -> TokenIds:
    """What the models say about token ids: how many all of them know, and which one opens a sequence."""
    sizes = []
    for model in models:
        embedding: Any = model.get_input_embeddings()
        sizes.append(int(getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0]))
    bos = models[-1].config.get_text_config().bos_token_id
    return TokenIds(min(sizes), bos if isinstance(bos, int) else None)


def end_ids(tokenizer: PreTrainedTokenizerBase | None, *models: PreTrainedModel) -> set[int]:
    """The ids at which the student's own sequences end: what the tokenizer and the models say."""
    from distil.data.encode import stop_ids
    from distil.data.hf import HfConfig
    from distil.engine.anatomy import eos_ids

    found = set() if tokenizer is None else set(stop_ids(HfConfig(), tokenizer))
    for model in models:
        found |= eos_ids(getattr(model, "generation_config", None) or model.config)
    return found


def filling_id(tokenizer: PreTrainedTokenizerBase | None) -> int:
    """An id to fill batches with; what is filled is masked by its place."""
    from distil.engine.evaluation import pad_id

    return 0 if tokenizer is None else pad_id(tokenizer)


def shared_ids(
    tokenizer: PreTrainedTokenizerBase | None, teacher: PreTrainedModel, student: PreTrainedModel
) -> int:
    """How many ids both models give a logit to. InputError where the tokenizer gives more."""
    from distil.models import shared_vocabulary

    reader: Any = token_ids(teacher, student) if tokenizer is None else tokenizer
    return shared_vocabulary(teacher, student, reader)
