"""Make the embedded pair: tokenizer, teacher and student, from rows of the ``pretrain`` split only.

It has a loop of its own because it trains on unlimited fresh rows, which the runner (a data set of fixed
size) has no words for. A sequence is tok(prompt) + tok(response) + [eos], tokenised apart; the loss is on
response and eos.

    python scripts/train_embedded_teacher.py                          # make both, in distil/assets
    python scripts/train_embedded_teacher.py --evaluate FOLDER ...    # score models on the test split
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from distil.data.embedded import generate_rows, true_entropy
from distil.metrics.faithfulness import faithfulness, fluency

ASSETS = Path(__file__).resolve().parents[1] / "distil" / "assets" / "embedded"
VOCABULARY, POSITIONS, POOL = 1024, 256, 1024
SHAPES: dict[str, dict[str, Any]] = {
    "teacher": {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4},
    "student": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
Sequence = tuple[list[int], list[int]]
Model: TypeAlias = Any
"""A LlamaForCausalLM: transformers leaves half of its methods without types."""


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (any text can be encoded) from 20,000 rows."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = generate_rows("pretrain", 20_000, seed)
    bpe.train_from_iterator((row[key] for row in rows for key in ("prompt", "response")), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no types
        tokenizer_object=bpe,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_model(role: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> Model:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPES[role],
    )
    return LlamaForCausalLM(config)


def encode(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[Sequence]:
    prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
    responses = tokenizer([row["response"] for row in rows])["input_ids"]
    return [(p, [*r, tokenizer.eos_token_id]) for p, r in zip(prompts, responses, strict=True)]


def fresh_batches(tokenizer: PreTrainedTokenizerBase, size: int, seed: int) -> Iterator[list[Sequence]]:
    """Endless batches of unseen rows, of similar length within a batch: little padding."""
    shuffle = random.Random(seed)
    pool = 0
    while True:
        pool += 1
        # A seed a pool: rows are a function of (split, seed, index), so every pool is new.
        sequences = encode(generate_rows("pretrain", POOL, seed * 1_000_000 + pool), tokenizer)
        sequences.sort(key=lambda sequence: len(sequence[0]) + len(sequence[1]))
        batches = [sequences[i : i + size] for i in range(0, len(sequences), size)]
        shuffle.shuffle(batches)
        yield from batches


def response_loss(model: Model, batch: list[Sequence]) -> tuple[torch.Tensor, int]:
    """Summed negative log-likelihood of response and eos, and how many tokens that is."""
    length = max(len(p) + len(r) for p, r in batch)
    ids = torch.full((len(batch), length), 1)
    labels = torch.full((len(batch), length), -100)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    # Padding is on the right, where a causal model cannot see it: no mask, and the fast attention.
    scored = labels[:, 1:] != -100
    hidden = model.model(ids[:, :-1]).last_hidden_state[scored]
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), labels[:, 1:][scored], reduction="sum")
    return loss, int(scored.sum())


def train(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int,
    rate: float,
    size: int,
    seed: int,
    warmup: int = 100,
) -> float:
    """AdamW, linear warmup, cosine to zero. Returns the processor seconds it took."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))

    def factor(step: int) -> float:
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    started = time.process_time()
    model.train()
    for step, batch in zip(range(1, steps + 1), fresh_batches(tokenizer, size, seed), strict=False):
        total, count = response_loss(model, batch)
        torch.autograd.backward(total / count)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            print(
                f"step {step} loss {total.item() / count:.4f} {time.process_time() - started:.0f}s",
                flush=True,
            )
    return time.process_time() - started


@torch.no_grad()
def generate(
    model: Model, tokenizer: PreTrainedTokenizerBase, prompts: list[str], sampled: bool
) -> list[str]:
    texts: list[str] = []
    for start in range(0, len(prompts), 100):
        batch = tokenizer(
            prompts[start : start + 100], return_tensors="pt", padding=True, padding_side="left"
        )
        ids, mask = batch["input_ids"], batch["attention_mask"]
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=80, do_sample=sampled, top_k=0, top_p=1.0
        )
        texts += tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


@torch.no_grad()
def evaluate(folder: Path, split: str, count: int, seed: int, show: int = 0) -> dict[str, float]:
    """Likelihood beside the true entropy, and the two scores of greedy and of sampled responses."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    rows = generate_rows(split, count, seed)
    sequences = encode(rows, tokenizer)
    losses = [response_loss(model, sequences[i : i + 100]) for i in range(0, count, 100)]
    tokens = sum(scored for _, scored in losses)
    scores = {
        "nll_per_token": sum(loss.item() for loss, _ in losses) / tokens,
        "entropy_per_token_sampled": -sum(row["log_probability"] for row in rows) / tokens,
        "entropy_per_token_exact": true_entropy(split, count, seed) * count / tokens,
    }
    torch.manual_seed(seed)
    for name, sampled in (("greedy", False), ("sampled", True)):
        texts = generate(model, tokenizer, [row["prompt"] for row in rows], sampled)
        for metric in (faithfulness, fluency):
            values = [metric(text, row["slots"]) for text, row in zip(texts, rows, strict=True)]
            scores[f"{metric.__name__}_{name}"] = sum(values) / count
        for row, text in list(zip(rows, texts, strict=True))[:show]:
            print(f"[{name} {faithfulness(text, row['slots']):.2f}] {row['prompt']}{text}\n")
    return scores


CARD = """---
license: apache-2.0
language: en
library_name: transformers
---

# The embedded {role} of distil-runner

A Llama of {parameters:,} parameters ({layers} layers of {hidden}, feed-forward {ffn}, {vocabulary} tokens,
tied embeddings), trained from scratch on the grammar of `distil/data/embedded.py` and on nothing else. It
answers the grammar's instructions and knows no other English. {purpose}

Sequence: tok(prompt) + tok(response) + [eos]; the prompt ends with a newline. Loss on the response and eos.

Recipe: {steps} steps of {size} fresh rows of the split `pretrain`, AdamW (.9, .95, weight decay .1),
learning rate {rate}, 100 steps of warmup, cosine to zero, gradients clipped at 1, seed {seed};
{seconds:.0f} s of one core. Weights are stored in float16. Made by

    {command}

| test split, {count} rows | |
|---|---|
{table}

NLL is in nats a token of response and eos; the entropy is that of the grammar, the floor that no model
passes.
"""

PURPOSES = {
    "teacher": "It is the teacher of the default run.",
    "student": "It is the student before the default run: it has been trained just long enough to speak, "
    "on other rows, and mostly ignores what it is asked.",
}


def save(role: str, model: Model, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # theirs has no types
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Half precision is for the size of the files alone, so a plain from_pretrained() gives float32; and
    # transformers 5 writes a class name that only it knows.
    for name, key, value in (
        ("config.json", "dtype", "float32"),
        ("tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast"),
    ):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}, indent=2) + "\n")


def make(role: str, tokenizer: PreTrainedTokenizerBase, arguments: argparse.Namespace) -> None:
    steps = arguments.steps if role == "teacher" else arguments.student_steps
    rate = arguments.lr if role == "teacher" else arguments.student_lr
    seed = arguments.seed + (0 if role == "teacher" else 1)
    model = make_model(role, tokenizer, seed)
    seconds = train(model, tokenizer, steps=steps, rate=rate, size=arguments.batch_size, seed=seed)
    folder = arguments.out / role
    save(role, model, tokenizer, folder)
    scores = evaluate(folder, "test", arguments.rows, seed=0)
    shape = SHAPES[role]
    card = CARD.format(
        role=role,
        parameters=model.num_parameters(),
        layers=shape["num_hidden_layers"],
        hidden=shape["hidden_size"],
        ffn=shape["intermediate_size"],
        vocabulary=VOCABULARY,
        purpose=PURPOSES[role],
        steps=steps,
        size=arguments.batch_size,
        rate=rate,
        seed=seed,
        seconds=seconds,
        command=shlex.join(["python", "scripts/train_embedded_teacher.py", *arguments.argv]),
        count=arguments.rows,
        table="\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items()),
    )
    (folder / "README.md").write_text(card)
    print(card)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--only", choices=["teacher", "student"], help="make one of the two")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--student-steps", type=int, default=650)
    parser.add_argument("--student-lr", type=float, default=5e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--evaluate", type=Path, nargs="+", metavar="FOLDER", help="score these, train nothing"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--show", type=int, default=0, help="responses to print with --evaluate")
    arguments = parser.parse_args(argv)
    arguments.argv = argv
    torch.set_num_threads(arguments.threads)
    for folder in arguments.evaluate or []:
        print(folder, evaluate(folder, arguments.split, arguments.rows, seed=0, show=arguments.show))
    if not arguments.evaluate:
        # One tokenizer for both: they must share their vocabulary.
        tokenizer = make_tokenizer(arguments.seed)
        for role in [arguments.only] if arguments.only else ["teacher", "student"]:
            make(role, tokenizer, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
