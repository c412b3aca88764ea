"""Perplexity of any causal language model on any data set: the engine's sums, exponentiated once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil.api.calls import checked
from distil.api.errors import ArgumentError, library_words, require
from distil.api.inputs import check_length, check_model, token_ids, warn_of_no_numbers
from distil.api.padding import without_padding
from distil.api.rows import raw_rows, read_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_LIMIT = 2**31 - 1


@checked("compute_perplexity")
def compute_perplexity(
    model: PreTrainedModel,
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    *,
    max_length: int | None = None,
) -> float:
    """exp of the mean negative log-likelihood of all scored tokens together; no mean of means.

    Args:
        model: a causal language model. It is moved to ``device``; its mode is as before afterwards.
        dataset: a ``datasets.Dataset``, a ``DataLoader``, a torch data set or a list of dicts, with
            ``input_ids`` (and ``labels``: -100 is not scored) or text.
        tokenizer: reads text, and says how padding looks where no ``attention_mask`` does. Padding is told by
            its place: with pad = EOS the EOS that ends a row is scored.
        device: such as ``"cuda"``; None: where the model is. There is no silent fallback.
        batch_size: rows at a time; it does not change the answer.
        max_length: cut rows that are longer, in tokens, at their end. None: a row that the model cannot hold
            is an error.

    Returns:
        The perplexity, from 1: exp of nats a token. Not comparable across tokenizers.

    Raises:
        ValueError: for rows that cannot be used, a model that is no causal language model, or a device that
            is not there.
    """
    from distil.engine.evaluation import pad_id, score_rows

    check_model(model, "model")
    require(
        tokenizer is not None and hasattr(tokenizer, "pad_token_id"),
        f"tokenizer is {type(tokenizer).__name__}: give AutoTokenizer.from_pretrained(…).",
    )
    require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}.")
    length = NO_LIMIT if max_length is None else max_length
    if device is not None:
        _move(model, device)
    with library_words():
        rows = read_rows(
            without_padding(raw_rows(dataset, "dataset"), tokenizer),
            max_length=length,
            tokenizer=tokenizer,
            ids=token_ids(model),
        )
    check_length(rows, "dataset", max_length, model)
    totals = score_rows(model, None, rows, pad_id(tokenizer), batch_size, 0)
    assert totals.perplexity is not None, "rows without a scored token are refused above"
    warn_of_no_numbers({"perplexity": totals.perplexity}, {"model": model})
    return totals.perplexity


def _move(model: PreTrainedModel, device: str | torch.device) -> None:
    try:
        model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        text = str(error).splitlines()[0].rstrip(".")
        raise ArgumentError(f'device="{device}" cannot be used here: {text}. Give device="cpu".') from error
