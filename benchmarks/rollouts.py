"""Sampling the student's own sequences: time beside the forwards that it cannot avoid, and generate().

    OMP_NUM_THREADS=1 python benchmarks/rollouts.py

A random Llama of 4 layers x 128 with 32,000 ids, 8 prompts of 64 tokens, 64 new tokens each, float32. The
floor is as many forwards with a growing cache, each with a constant token. Rows are interleaved; time is the
process's CPU time. Every row samples from the whole vocabulary at temperature 1 and never ends early.
Writes ``benchmarks/results/rollouts.md``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from runs import markdown, parser, write
from transformers import DynamicCache, GenerationConfig, LlamaConfig, LlamaForCausalLM

from distil.config.schema import RolloutConfig
from distil.engine.rollouts import generate, uniforms

VOCABULARY, ROWS, PROMPT, NEW = 32_000, 8, 64, 64


def build() -> LlamaForCausalLM:
    """The model; weights of some size, so that its distributions are not flat."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=PROMPT + NEW,
        initializer_range=0.1,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def floor(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    """One forward for the prompts and one for each further token."""
    cache = DynamicCache(config=model.config)
    ids_BT = torch.tensor(prompts)
    for _ in range(NEW):
        model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids_BT = ids_BT[:, :1]


def ours(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    """What the trainer does."""
    noise = uniforms(0, 0, range(len(prompts)), NEW)
    rows = generate(model, prompts, RolloutConfig(max_new_tokens=NEW), eos_ids=(), pad_id=0, uniforms=noise)
    assert all(len(row.ids) == NEW for row in rows)


def transformers_generate(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    """``generate`` of transformers, sampling."""
    settings = GenerationConfig(do_sample=True, max_new_tokens=NEW, top_k=0, pad_token_id=0)
    ids_BT = torch.tensor(prompts)
    new = model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings)
    assert new.shape[1] == PROMPT + NEW


Row = Callable[[LlamaForCausalLM, list[list[int]]], None]
TRIED: dict[str, Row] = {"floor": floor, "ours": ours, "generate()": transformers_generate}


def main() -> None:
    """Measure and write."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=9)
    asked = options.parse_args()
    model = build()
    prompts = torch.randint(1, VOCABULARY, (ROWS, PROMPT)).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in TRIED}
    for index in range(asked.rounds + 1):
        for name, row in TRIED.items():
            start = time.process_time()
            row(model, prompts)
            if index:
                seconds[name].append(time.process_time() - start)
    base = statistics.median(seconds["floor"])
    cells = [
        [name, f"{statistics.median(taken):.3f}", f"{statistics.median(taken) / base:.2f}"]
        for name, taken in seconds.items()
    ]
    table = markdown(["", "CPU seconds", "x floor"], cells)
    write(asked.output / "rollouts.md", "Sampling the student's own sequences", [table])


if __name__ == "__main__":
    main()
