"""Do the tests bite? Each small change that mutmut makes to a module is put to the tests of that module.

    make mutate                                            # all modules below: an hour or so
    make mutate ARGS=distil/divergences.py                 # one of them
    make mutate ARGS="distil/divergences.py --survivors"   # again, what survived last time

Of each module: how many mutants were killed, and each survivor that ``tests/mutants.md`` does not explain.
Such a one is an error, and so is an explanation of one that did not survive, or whose function has changed
since. Nothing in the tree is changed:
mutmut works in ``mutants/``, a folder for each module, where ``mutmut browse`` reads what it found.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "tests" / "mutants.md"
COPIED = ("distil", "llm_distil", "conf", "tests", "pyproject.toml")
SCORE = "score.txt"
ENTRY = re.MULTILINE | re.DOTALL

UNIT = "tests/unit"
INVARIANT = "tests/invariant"
CACHE = f"{INVARIANT}/test_teacher_cache.py"
COMPARISON = f"{UNIT}/report/comparison"
DIVERGENCES = (
    f"{UNIT}/test_divergences.py",
    f"--deselect={UNIT}/test_divergences.py::test_jsd_equals_trl_between_the_ends",
)
HEAD = (
    f"{UNIT}/test_slopes.py",
    f"{UNIT}/test_head.py",
    f"--deselect={UNIT}/test_head.py::test_gradcheck",
    f"{UNIT}/test_sparse.py",
    f"--deselect={UNIT}/test_sparse.py::test_gradcheck",
)
TESTS: dict[str, tuple[str, ...]] = {
    "distil/divergences.py": DIVERGENCES,
    "distil/losses.py": DIVERGENCES,
    "distil/sequence_losses.py": (f"{UNIT}/test_sequence_losses.py",),
    "distil/slopes.py": HEAD,
    "distil/fused.py": HEAD,
    "distil/projection.py": HEAD[1:],
    "distil/head.py": HEAD[1:],
    "distil/sparse.py": HEAD[3:],
    "distil/report/comparison/statistics.py": (f"{COMPARISON}/test_statistics.py",),
    "distil/report/comparison/table.py": (f"{COMPARISON}/test_table.py",),
    "distil/report/comparison/budget.py": (f"{COMPARISON}/test_budget.py",),
    "distil/report/comparison/costs.py": (f"{COMPARISON}/test_budget.py",),
    "distil/engine/checkpoints.py": (
        f"{UNIT}/test_checkpoints.py",
        f"--deselect={UNIT}/test_checkpoints.py::test_killed_at_any_moment_checkpoints_are_complete_or_absent",
    ),
    "distil/engine/saving.py": (
        f"{UNIT}/test_saving.py",
        f"{INVARIANT}/test_cut_up.py",
        f"{INVARIANT}/test_adapter_trajectories.py::test_resume_is_bitwise[lora]",
        f"{INVARIANT}/test_adapter_trajectories.py::test_the_best_checkpoint_is_loaded[lora]",
        f"{INVARIANT}/test_adapter_trajectories.py::test_a_checkpoint_of_another_adapter_is_refused",
        f"{INVARIANT}/test_trajectories.py::test_gone_on_from_its_end_a_run_stays_as_it_is",
        f"{INVARIANT}/test_trajectories.py::test_the_best_checkpoint_is_kept_and_loaded",
    ),
    "distil/engine/trainer.py": (
        f"{INVARIANT}/test_trajectories.py::test_step_follows_the_gradient_of_the_naive_loss",
        f"{INVARIANT}/test_trajectories.py::test_not_a_number_stops_the_run_and_names_the_rows",
        f"{INVARIANT}/test_trajectories.py::test_rollouts_are_counted_and_reproducible",
        f"{INVARIANT}/test_broken_steps.py",
        f"{INVARIANT}/test_logs.py",
        f"{INVARIANT}/test_cut_up.py::test_gone_on_it_is_a_run_of_whole_models",
        f"{INVARIANT}/test_cut_up.py::test_no_code_of_a_checkpoint_is_run[optimizer.pt]",
        f"{INVARIANT}/test_packing.py::test_no_padding_is_computed",
        f"{CACHE}::test_twenty_steps_from_the_cache_are_those_beside_the_teacher[hidden-llama-gkd]",
        f"{CACHE}::test_the_teacher_itself_is_not_needed",
        f"{CACHE}::test_a_term_that_the_cache_cannot_serve_ends_the_run_with_the_reason",
    ),
    "distil/engine/rollouts.py": (
        f"{UNIT}/test_rollouts.py",
        f"{INVARIANT}/test_adapter_signals.py::test_generation_is_that_of_each_row_alone",
    ),
    "distil/engine/evaluation.py": (f"{UNIT}/test_evaluation.py",),
}
"""The modules, and the tests that are asked about each: few and fast ones, or a mutant takes minutes."""
SAMPLED = {"distil/engine/trainer.py": 50, "distil/engine/rollouts.py": 50, "distil/engine/evaluation.py": 50}
"""Of these modules, this many mutants, the same ones each time."""
PARTS = {"distil/engine/saving.py": r"load|best|ǁtrain__|ǁ_init_training_state|ǁ_run_epoch"}
"""Of these modules, the functions of such names: of this one, what reads a checkpoint."""

KILLED = (1, 3)
"""What pytest ends with where a test failed, or itself."""
TIMED_OUT = (36, -24, 24, 152, 255)


def main() -> None:
    """Each module in a process of its own: mutmut keeps what it knows in globals."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--survivors", action="store_true", help="only what survived last time")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    asked = parser.parse_args()
    if unknown := [module for module in asked.modules if module not in TESTS]:
        sys.exit(f"{', '.join(unknown)}: not among the modules of {parser.prog} --help.")
    if len(asked.modules) == 1:
        sys.exit(not mutate(asked.modules[0], asked.survivors, asked.jobs))
    modules = asked.modules or list(TESTS)
    options = [f"--jobs={asked.jobs}", *(["--survivors"] if asked.survivors else [])]
    codes = [subprocess.run([sys.executable, __file__, each, *options]).returncode for each in modules]
    scores = [_workshop(module) / SCORE for module in modules]
    print("\n".join(score.read_text(encoding="utf-8") for score in scores if score.exists()))
    sys.exit(max(codes))


def mutate(module: str, survivors: bool, jobs: int) -> bool:
    """Whether every mutant of ``module`` is killed, or explained."""
    from mutmut.__main__ import _run
    from mutmut.configuration import config

    workshop = _workshop(module)
    workshop.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if not (workshop / name).exists():
            (workshop / name).symlink_to(ROOT / name)
    os.chdir(workshop)
    # Programs that a test starts are to meet the mutant too.
    paths = [str(workshop / "mutants"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    settings = config()
    settings.only_mutate = [module]
    settings.pytest_add_cli_args_test_selection = list(TESTS[module])
    names = _names(module)
    if survivors:
        codes = _codes(module)
        names = [name for name in names if codes.get(name) not in (*KILLED, *TIMED_OUT)]
    if names:
        _run(names, jobs)
    return _judge(module)


def _workshop(module: str) -> Path:
    """Where mutmut works on ``module``: it keeps its results as long as nothing that it is told changes."""
    return ROOT / "mutants" / module.removesuffix(".py").replace("/", ".")


def _names(module: str) -> list[str]:
    """The mutants of ``module``, or the sample of them."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    made = mutate_file_contents(module, Path(module).read_text(encoding="utf-8")).mutant_names
    names = [get_mutant_name(Path(module), name) for name in made if re.search(PARTS.get(module, ""), name)]
    return random.Random(0).sample(names, SAMPLED[module]) if module in SAMPLED else names


def _codes(module: str) -> dict[str, int | None]:
    """What pytest ended with, by mutant, in functions that are as they were when it was asked."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.file_mutation import compute_function_hashes
    from mutmut.utils.format_utils import mangled_name_from_mutant_name

    data = SourceFileMutationData(path=module)
    data.load()
    then, now = data.hash_by_function_name, compute_function_hashes(Path(module).read_text(encoding="utf-8"))
    of = {name: mangled_name_from_mutant_name(name).rpartition(".")[2] for name in data.exit_code_by_key}
    return {name: code for name, code in data.exit_code_by_key.items() if then[of[name]] == now.get(of[name])}


def _judge(module: str) -> bool:
    """Say how many were killed, and show each survivor that nothing explains."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    found, functions = _codes(module), _functions(module)
    codes = {name: found.get(name) for name in _names(module)}
    killed = sum(code in KILLED for code in codes.values())
    late = sum(code in TIMED_OUT for code in codes.values())
    explained, met, bad = _explained(module), set(), []
    for name in (name for name, code in codes.items() if code not in (*KILLED, *TIMED_OUT)):
        diff = get_diff_for_mutant(name, path=module)
        place = _function(name), functions[_function(name)]
        fitting = {each for each in explained if each[2:] == place and _explains(each[:2], diff)}
        met |= fitting
        if not fitting:
            bad.append(f"{name} ({codes[name]}), of `{place[0]}` {place[1]}\n{diff}")
    equivalent = len(codes) - killed - late - len(bad)
    share = (killed + late) / max(len(codes) - equivalent, 1)
    said = (
        f"{module}: {len(codes)} mutants, {killed} killed, {late} timed out, {len(bad)} survived, "
        f"{equivalent} equivalent: {share:.1%}"
    )
    Path(SCORE).write_text(said, encoding="utf-8")
    stale = []
    for old, new, function, digest in sorted(explained - met):
        if digest != functions.get(function):
            stale.append(f"{function} is no longer {digest}: look again at {old} → {new}")
        elif module not in SAMPLED:  # what is explained may be of another sample
            stale.append(f"Explained, though it did not survive in {function}: {old} → {new}")
    print("\n\n".join([*bad, *stale, said]))
    return not bad and not stale


def _function(mutant: str) -> str:
    """Whose change a mutant is: a function's name, or class and method."""
    mangled = mutant.rpartition(".")[2].rpartition("__mutmut_")[0]
    return mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def _functions(module: str) -> dict[str, str]:
    """Six digits of each function's text: another text, another mutant, which nobody has looked at."""
    text = Path(module).read_text(encoding="utf-8")
    body = ast.parse(text).body
    classes = [(f"{node.name}.", node.body) for node in body if isinstance(node, ast.ClassDef)]
    return {
        prefix + node.name: sha256((ast.get_source_segment(text, node) or "").encode()).hexdigest()[:6]
        for prefix, nodes in (("", body), *classes)
        for node in nodes
        if isinstance(node, ast.FunctionDef)
    }


def _explained(module: str) -> set[tuple[str, str, str, str]]:
    """Of the mutants of ``module`` that no test could kill: what was there, what is there instead, and in
    which function, whose text has which digits."""
    text = EXPLAINED.read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(module)}\n(.*?)(?=^## |\Z)", text, ENTRY)
    entries = re.findall(r"^- `(.+?)` → `(.*?)`(.*?)(?=^- |\Z)", section[1] if section else "", ENTRY)
    places = [(old, new, re.findall(r"`(\S+)` ([0-9a-f]{6})\b", about)) for old, new, about in entries]
    return {(old, new, *place) for old, new, among in places for place in among}


def _explains(explanation: tuple[str, str], diff: str) -> bool:
    """Whether the change is that one, at one place of the line."""
    lines = diff.splitlines()[2:]
    was, now = (" ".join(" ".join(line[1:] for line in lines if line[0] == sign).split()) for sign in "-+")
    old, new = explanation
    places = [match.start() for match in re.finditer(re.escape(old), was)]
    return any(was[:at] + new + was[at + len(old) :] == now for at in places)


if __name__ == "__main__":
    main()
