"""The public name: what it exports, with which signatures, how fast it imports, and how it types."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import llm_distil

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = ("llm_distil", "llm_distil.losses", "llm_distil.metrics", "llm_distil.utils")


def described(name: str, thing: object) -> list[str]:
    """One line for a function; for a class one for each public member too."""
    if inspect.ismodule(thing) or not callable(thing):
        return [f"{name}: {type(thing).__name__}"]
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return [f"class {name}({', '.join(base.__name__ for base in thing.__bases__)})"]
    lines = [f"{name}{inspect.signature(thing)}"]
    if inspect.isclass(thing):
        lines[0] = f"class {lines[0]}"
        for member, value in sorted(inspect.getmembers(thing)):
            if not member.startswith("_") and member in _own(thing):
                shown = inspect.signature(value) if callable(value) else ""
                lines.append(f"    {member}{shown}")
    return lines


def _own(kind: type) -> set[str]:
    """Members that the class or a base of ours defines, fields left out (the signature has them)."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("distil.api")]
    return {
        name
        for base in ours
        for name, value in vars(base).items()
        if callable(value) or isinstance(value, (property, classmethod))
    }


def test_names_and_signatures_are_those_of_the_snapshot() -> None:
    lines = []
    for module in map(importlib.import_module, MODULES):
        lines.append(f"# {module.__name__}")
        for name in module.__all__:
            lines += described(name, getattr(module, name))
    shown = "\n".join(lines) + "\n"
    kept = SNAPSHOT.read_text(encoding="utf-8") if SNAPSHOT.exists() else ""
    if not kept:
        SNAPSHOT.write_text(shown, encoding="utf-8")
    assert shown == kept, (
        f"the public API changed; where that is meant, delete {SNAPSHOT.name}, run this twice, tell users"
    )


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    assert {name for name in dir(llm_distil) if name[:2] != "__"} == {*llm_distil.__all__} - {"__version__"}
    assert "__version__" in dir(llm_distil)
    typed = {
        line.rpartition(" as ")[2]
        for line in Path(inspect.getfile(llm_distil)).read_text("utf-8").splitlines()
        if line.startswith("    from ")
    }
    assert typed == set(llm_distil.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        llm_distil.nothing  # noqa: B018


CALLABLES = [n for n in llm_distil.__all__ if callable(getattr(llm_distil, n))]
RAISES_NOTHING = {
    "MetricTracker", "ArgumentError", "RunFailed", "get_all_metrics", "to_dict", "reset", "free_student",
}  # fmt: skip
"""Of what is public: what has no bad input."""
OBJECTIVES = {
    "KnowledgeDistillation": "1503.02531",
    "ReverseKnowledgeDistillation": "2306.08543",
    "GeneralizedKnowledgeDistillation": "2306.13649",
    "sequence_kl_divergence": "1503.02531",
    "sequence_reverse_kl_divergence": "2306.08543",
    "generalized_jsd_loss": "2306.13649",
    "compute_rouge": "Lin 2004",
    "compute_bleu": "Papineni et al. 2002",
}
"""What has a source, and which."""
UNITS = ("nats", "0 to 1", "unit of the values", "nats a token", "A count of ids")


def public(name: str) -> Iterator[tuple[str, Any]]:
    """The thing of that name, and of a class its public methods."""
    thing = getattr(llm_distil, name)
    yield name, thing
    for member in sorted(_own(thing)) if inspect.isclass(thing) else ():
        if not member.startswith("_"):
            yield member, inspect.getattr_static(thing, member)


def sections(thing: Any) -> dict[str, str]:
    """The sections of a docstring by heading (``Args``), as the site reads them; its opening under ''."""
    text = inspect.getdoc(getattr(thing, "__func__", thing)) or ""
    parts = re.split(r"^(Args|Returns|Raises):$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize("name", CALLABLES)
def test_everything_public_says_arguments_value_and_errors(name: str) -> None:
    for member, thing in public(name):
        told = sections(thing)
        assert len(told[""].split()) >= 3, member
        if isinstance(thing, property) or "Arguments and errors\nas in" in told[""]:
            continue
        if "as in ``BaseDistillation``" in " ".join(told[""].split()):
            continue
        called = getattr(thing, "__func__", thing)
        if not (inspect.isclass(thing) and issubclass(thing, Exception)):
            signature = inspect.signature(called)
            arguments = [p for p in signature.parameters if p not in ("self", "cls")]
            if name == member == "DistillationConfig":
                arguments = []  # fields, of which each has a docstring: see below
            named = re.findall(r"^    (\w+): \S", told.get("Args", ""), re.MULTILINE)
            assert named == arguments, member
            gives = signature.return_annotation not in (None, "None") and not inspect.isclass(thing)
            assert gives == ("Returns" in told), member
            if signature.return_annotation in ("float", "Tensor", "dict[str, float]", "BleuScore", "int"):
                assert any(unit in told["Returns"] for unit in UNITS), member
        assert ("Raises" in told) != (member in RAISES_NOTHING), member
        if "Raises" in told:
            assert re.search(r"^    [\w.]+: ", told["Raises"], re.MULTILINE), member


def test_every_field_of_the_config_is_documented() -> None:
    """Right under it, as the site and editors read it."""
    source = Path(inspect.getfile(llm_distil.DistillationConfig)).read_text("utf-8")
    (kind,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "DistillationConfig"
    )
    told = [
        first.target.id
        for first, then in pairwise(kind.body)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(then, ast.Expr)
        and isinstance(then.value, ast.Constant)
    ]
    assert told == [field.name for field in dataclasses.fields(llm_distil.DistillationConfig)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_has_a_source_names_it_and_its_formula(name: str) -> None:
    text = inspect.getdoc(getattr(llm_distil, name)) or ""
    assert OBJECTIVES[name] in text
    if "." in OBJECTIVES[name] and "et al" not in OBJECTIVES[name]:
        assert f"arXiv {OBJECTIVES[name]}, section" in " ".join(text.split())
        assert re.search(r"KL\(|JSD", text)


def test_importing_is_quick_and_brings_no_torch() -> None:
    code = """
    import sys, time
    begun = time.process_time()
    import llm_distil
    from llm_distil import DistillationConfig, KnowledgeDistillation
    from llm_distil.losses import sequence_kl_divergence
    from llm_distil.metrics import MetricTracker, compute_perplexity
    from llm_distil.utils import get_tokenizer
    config = DistillationConfig("a", "b", epochs=3, use_peft=True)
    spent = time.process_time() - begun
    heavy = {"torch", "transformers", "datasets", "peft", "hydra"} & sys.modules.keys()
    assert not heavy, heavy
    assert spent < .3, spent
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


USER = '''
"""As a user would write it."""

from pathlib import Path

from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainingArguments

import llm_distil
from llm_distil import DistillationConfig, GeneralizedKnowledgeDistillation, KnowledgeDistillation
from llm_distil.losses import generalized_jsd_loss
from llm_distil.metrics import MetricTracker, compute_bleu, compute_perplexity, compute_rouge
from llm_distil.utils import get_tokenizer, get_vocab_size


def distil(teacher: PreTrainedModel, student: PreTrainedModel, rows: Dataset) -> float:
    config = DistillationConfig("gpt2-medium", "gpt2", epochs=3, use_peft=True, lora_r=4)
    config.lambda_gkd = 0.3
    learns = KnowledgeDistillation(teacher, student, config)
    output = learns.train(rows, rows, TrainingArguments(output_dir="out"))
    step: int = output.global_step
    scores: dict[str, float] = learns.evaluate(rows)
    learns.save_student(Path("out"))
    again: PreTrainedModel = learns.load_student("out")
    tokenizer = get_tokenizer("gpt2")
    other = GeneralizedKnowledgeDistillation(config, teacher, student, tokenizer)
    command: str = other.command("rows")
    print(step, again, command, get_vocab_size("gpt2") + 1, llm_distil.__version__.upper())
    return scores["perplexity"] + compute_perplexity(student, rows, tokenizer, device="cpu")


def measure(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    tracker = MetricTracker()
    tracker.update("rouge", compute_rouge(["a"], ["b"])["rougeL"])
    tracker.update("bleu", compute_bleu(["a"], [["b"]])["bleu"])
    loss = generalized_jsd_loss(teacher_logits, student_logits, lambda_weight=0.5)
    return loss + tracker.get_average("bleu")


def load() -> None:
    DistillationConfig.from_dict(DistillationConfig.load("c.json").to_dict()).save("c.json")
    teacher, student = map(AutoModelForCausalLM.from_pretrained, ("a", "b"))
    distil(teacher, student, Dataset.from_dict({}))
    AutoTokenizer.from_pretrained("a")
'''

WRONG = {
    'KnowledgeDistillation("gpt2", student, config)': "call-overload",
    "KnowledgeDistillation(student, config)": "call-overload",
    'DistillationConfig("a")': "call-arg",
    'DistillationConfig("a", "b", temprature=2.0)': "call-arg",
    'DistillationConfig("a", "b", epochs="3")': "arg-type",
    "generalized_jsd_loss(logits, logits, 0.5)": "call-arg",
    "llm_distil.nothing": "attr-defined",
}
"""What a type checker must see, and under which code."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_types_strictly_as_a_user_uses_it(tmp_path: Path) -> None:
    lines = [
        "import llm_distil",
        "from torch import Tensor",
        "from transformers import PreTrainedModel",
        "from llm_distil import DistillationConfig, KnowledgeDistillation, generalized_jsd_loss",
        "def wrong(student: PreTrainedModel, config: DistillationConfig, logits: Tensor) -> None:",
        *(f"    {line}" for line in WRONG),
    ]
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    (tmp_path / "wrong.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # From the project's root, where the cache of what it imports lies: cold, that takes minutes.
    files = [str(tmp_path / "user.py"), str(tmp_path / "wrong.py")]
    command = [sys.executable, "-m", "mypy", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    told = [
        line.rpartition(f"{tmp_path.name}/")[2] for line in done.stdout.splitlines() if ": error:" in line
    ]
    assert told, done.stdout + done.stderr
    assert not [line for line in told if line.startswith("user.py")], done.stdout + done.stderr
    at = {int(line.split(":")[1]): line for line in told if line.startswith("wrong.py")}
    for number, (source, code) in enumerate(WRONG.items(), len(lines) - len(WRONG) + 1):
        assert f"[{code}]" in at.get(number, ""), (source, done.stdout)
