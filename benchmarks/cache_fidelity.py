"""What each format of the teacher cache keeps of the gradient, at how many bytes, read how fast.

    OMP_NUM_THREADS=1 python benchmarks/cache_fidelity.py --data ../shared/data
    OMP_NUM_THREADS=1 python benchmarks/cache_fidelity.py --teacher FOLDER --layers 0,1,2 --rows FILE.jsonl

The error is the distance from the gradient that the whole teacher gives, as a share of that gradient's
length: along the student's hidden states at each position, and along its head's weight, where noise that is
unbiased averages out over positions. The student is the teacher with some of its layers, or ``--student``, as
a run left it. Reading is timed on rows in random order, from the memory map to the signal, in tokens a second
of processor time. Writes ``benchmarks/results/cache_fidelity.md``, or ``cache_fidelity_<label>.md``.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from runs import ROOT, markdown, parser, write
from torch import Tensor

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl
from distil.head import Dense, Head, score
from distil.losses import Term
from distil.models import load_student, load_teacher, load_tokenizer
from distil.sparse import Sparse
from distil.teacher_cache.answers import CachedTeacher
from distil.teacher_cache.build import TeacherForward
from distil.teacher_cache.formats.base import CacheFormat
from distil.teacher_cache.formats.hidden import Hidden, HiddenConfig
from distil.teacher_cache.formats.sampled import Sampled, SampledConfig
from distil.teacher_cache.formats.topk import TopK, TopKConfig
from distil.teacher_cache.manifest import Manifest
from distil.teacher_cache.store import Reader, write_shard
from distil.types import IGNORE_INDEX, REFERENCE

TEMPERATURES = (1.0, 2.0)
SCORES = {"forward KL": forward_kl, "JSD": GeneralizedJSD(0.5), "reverse KL": reverse_kl}
READ_TOKENS, ROWS_AT_ONCE, READ_SECONDS = 300_000, 16, 2.0
PROMPT = 8


@dataclass
class Pair:
    """What both models say about the same rows."""

    teacher: Dense
    student: Dense
    lengths: list[int]

    @property
    def rows_N(self) -> list[int]:
        """The row of each position."""
        return [row for row, n in enumerate(self.lengths) for _ in range(n)]

    @property
    def vocabulary(self) -> int:
        """Ids of the teacher."""
        assert self.teacher.head.weight_VH is not None
        return len(self.teacher.head.weight_VH)


def build(teacher: str, student: StudentConfig, texts: list[str], length: int) -> Pair:
    """Load both, ask both."""
    config = ModelConfig("pair", TeacherConfig(path=teacher), student)
    tokenizer, _ = load_tokenizer(config)
    ids = [tokenizer(text)["input_ids"][:length] for text in texts]
    rows = [{"input_ids": row, "labels": [IGNORE_INDEX] * PROMPT + row[PROMPT:]} for row in ids]
    theirs = load_teacher(config)
    assert theirs is not None
    says = [TeacherForward(model, 0, None)(rows) for model in (theirs, load_student(config, 0).model)]
    return Pair(*says, [len(row) - PROMPT for row in ids])


def gradient(pair: Pair, signal: Dense | Sparse, term: Term) -> tuple[Tensor, Tensor]:
    """Along the student's hidden states and its head's weight."""
    head = pair.student.head
    assert head.weight_VH is not None
    hidden_NH = pair.student.hidden_NH.detach().clone().requires_grad_()
    weight_VH = head.weight_VH.detach().clone().requires_grad_()
    student = Dense(hidden_NH, Head(weight_VH, head.bias_V, head.scale, head.softcap))
    loss, _ = score(student, torch.zeros(len(hidden_NH), dtype=torch.long), [term], signal, pair.vocabulary)
    along = torch.autograd.grad(loss, (hidden_NH, weight_VH))
    return along[0], along[1]


def error(full: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor]) -> str:
    """Distance as a share, along both."""
    shares = [float((a - b).norm() / a.norm()) for a, b in zip(full, kept, strict=True)]
    return " / ".join(f"{share:.2%}" for share in shares)


def formats(temperature: float) -> dict[str, CacheFormat[Any]]:
    """What is compared at one temperature."""
    found: dict[str, CacheFormat[Any]] = {
        "hidden, bfloat16": Hidden(HiddenConfig(dtype="bfloat16")),
        **{f"topk, k={k}": TopK(TopKConfig(k=k, temperatures=[temperature])) for k in (12, 64, 256)},
    }
    for draws in ("systematic", "independent"):
        config = SampledConfig(draws=draws, temperature=temperature)
        found[f"sampled, {draws}"] = Sampled(config)
    return found


def read_speed(kept: CacheFormat[Any], pair: Pair, folder: Path) -> float:
    """Million tokens a second of processor time."""
    stored = kept.encode(pair.teacher, pair.rows_N, pair.vocabulary)
    times = -(-READ_TOKENS // len(pair.rows_N))
    many = {name: torch.cat([tensor] * times) for name, tensor in stored.items()}
    shard = write_shard(folder, "all.safetensors", 0, pair.lengths * times, many)
    reader = CachedTeacher(
        Reader(folder, Manifest({}, (shard,), complete=True)), kept, pair.teacher.head, torch.device("cpu")
    )
    chance, tokens = random.Random(0), 0
    lengths = pair.lengths * times
    began = time.process_time()
    while time.process_time() - began < READ_SECONDS:
        rows = [chance.randrange(len(lengths)) for _ in range(ROWS_AT_ONCE)]
        reader(rows)
        tokens += sum(lengths[row] for row in rows)
    return tokens / (time.process_time() - began) / 1e6


def table(pair: Pair, temperature: float) -> str:
    """One temperature: bytes, speed, errors."""
    full = {
        name: gradient(pair, pair.teacher, Term(1.0, REFERENCE, one, temperature))
        for name, one in SCORES.items()
    }
    rows = []
    for label, kept in formats(temperature).items():
        stored = kept.encode(pair.teacher, pair.rows_N, pair.vocabulary)
        signal = kept.decode(stored, pair.teacher.head)
        size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) / len(pair.rows_N)
        errors = []
        for name, one in SCORES.items():
            term = Term(1.0, REFERENCE, one, temperature)
            refused = kept.refusal(term) is not None
            errors.append("" if refused else error(full[name], gradient(pair, signal, term)))
        with tempfile.TemporaryDirectory() as folder:
            speed = read_speed(kept, pair, Path(folder))
        rows.append([label, f"{size:,.0f}", f"{speed:.1f}", *errors])
    header = ["format", "bytes a token", "read, M tokens / CPU s", *SCORES]
    return f"## Temperature {temperature:g}\n\n{markdown(header, rows)}"


def texts_of(file: Path, count: int) -> list[str]:
    """Texts of JSON Lines: ``text``, or all that a row says."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    keys = ("instruction", "context", "response", "output")
    return [row.get("text") or "\n".join(row[key] for key in keys if row.get(key)) for row in rows]


def main() -> None:
    """Load, measure, tabulate."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--teacher", help="a folder or a hub name; stories260K of --data if not given")
    options.add_argument("--layers", default="0,2,4", help="of the teacher, that the student keeps")
    options.add_argument("--student", help="a trained one, in place of --layers")
    options.add_argument("--rows", type=Path, help="JSON Lines; the stories of --data if not given")
    options.add_argument("--count", type=int, default=40, help="rows")
    options.add_argument("--length", type=int, default=192, help="tokens of a row at most")
    options.add_argument("--label", help="of the file that is written")
    given = options.parse_args()
    teacher = given.teacher or str(given.data / "models" / "stories260K")
    layers = [int(layer) for layer in given.layers.split(",")]
    student = StudentConfig(path=given.student) if given.student else StudentConfig(keep_layers=layers)
    texts = texts_of(given.rows or given.data / "tinystories" / "test.jsonl", given.count)
    pair = build(teacher, student, texts, given.length)
    said = f"layers {given.layers} of it" if given.student is None else "a trained student"
    parts = [
        f"Teacher {Path(teacher).name}, student: {said}; {len(pair.rows_N):,} tokens, vocabulary "
        f"{pair.vocabulary:,}. Errors along hidden states / along the head's weight.\n",
        *(table(pair, temperature) for temperature in TEMPERATURES),
    ]
    name = f"cache_fidelity_{given.label}.md" if given.label else "cache_fidelity.md"
    write(given.output / name, "The teacher cache: what is kept of the gradient", parts)


if __name__ == "__main__":
    main()
