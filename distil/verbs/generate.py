"""``distil generate RUN --prompt TEXT``: a finished run's student answers, beside its teacher where asked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distil.system.offline import network
from distil.system.printable import printable
from distil.types import InputError
from distil.verbs.arguments import Parser, begin, warn, whole

if TYPE_CHECKING:
    import argparse

    from distil.config.schema import EvalConfig
    from distil.metrics.base import Generation
    from distil.products.finished_run import FinishedRun

SAMPLING = {"temperature": "sampling_temperature", "top_k": "top_k", "top_p": "top_p", "seed": "seed"}
"""What draws, and what ``eval`` calls it."""
SHOWN = 60
"""Characters of a system message that is shown whole."""


def main(arguments: Sequence[str]) -> int:
    """Answer each prompt, and print the answers."""
    parser = _parser()
    given = parser.read(arguments)
    if given is None:
        return 0
    parser.refuse_keys([text for text in given.prompts if len(text.split()) == 1])  # --prompt takes any
    prompts = [*given.prompts, *given.prompt]
    if not prompts:
        raise InputError("distil generate: no prompt. Give --prompt TEXT. See distil generate --help.")
    if any(not prompt.strip() for prompt in prompts):
        raise InputError("--prompt: an empty prompt. Give a text.")
    from distil.products.library import SavedStudent, open_product

    run = open_product(given.run, trust=given.trust_remote_code)
    if given.teacher and run.config.model.teacher.path is None:
        why = "the library saved no teacher" if isinstance(run, SavedStudent) else "model.teacher.path=null"
        raise InputError(f"--teacher: {run.folder} has none ({why}).")
    config = _settings(run.config.eval, given)
    seed = run.config.seed if given.seed is None else given.seed
    warn(run.folder, run.record.damaged)
    begin("Answering with", run.folder)
    with network(run.config.run.allow_network):
        answers = _answers(run, prompts, config, seed, given)
    texts = {who: [answer.text for answer in answers[who]] for who in answers}
    if len(prompts) == 1 and not given.teacher:
        print(printable(texts["student"][0]))
    else:
        _print(prompts, texts)
    _say_unended([answer for who in answers for answer in answers[who]], config.max_new_tokens)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "generate",
        "Let the student of a finished run answer. Prompts are written as in its training (chat\n"
        "template, headings, closing line break); settings not given are those of the\n"
        "run's own evaluation (eval.*). What save_student of the library wrote is asked as its\n"
        "rows of text were written, by the defaults of eval.*.",
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="the folder of a finished run, or of save_student"
    )
    parser.add_argument("prompts", metavar="TEXT", nargs="*", default=[], help="a prompt, as --prompt TEXT")
    parser.add_argument(
        "--prompt", metavar="TEXT", action="append", default=[], help="may be given several times"
    )
    parser.add_argument("--teacher", action="store_true", help="show the teacher's answer beside it")
    parser.add_argument("--max-new-tokens", metavar="N", type=whole(1))
    parser.add_argument(
        "--context", metavar="TEXT", default="", help="what a prompt is about, as the context column has it"
    )
    parser.add_argument(
        "--system",
        metavar="TEXT",
        default="",
        help="the system message before a prompt, as chat rows have it",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--sample",
        action="store_true",
        help="draw tokens; --temperature, --top-k, --top-p and --seed imply it",
    )
    how.add_argument("--greedy", action="store_true", help="take the likeliest token each time")
    parser.add_argument("--temperature", metavar="T", type=float)
    parser.add_argument("--top-k", metavar="K", type=whole(0), help="the K likeliest tokens only; 0: all")
    parser.add_argument("--top-p", metavar="P", type=float, help="the likeliest tokens up to a share of P")
    parser.add_argument("--seed", metavar="N", type=whole(0), help="of the draws; the run's own if not given")
    parser.may_trust()
    return parser


def _settings(config: EvalConfig, given: argparse.Namespace) -> EvalConfig:
    """The run's own settings with what was given in their place. InputError for what is out of range."""
    if given.temperature == 0:
        raise InputError("--temperature 0 draws nothing: write --greedy.")
    named = [option for option in SAMPLING if getattr(given, option) is not None]
    if given.greedy and named:
        raise InputError(f"--greedy draws nothing: leave out --{named[0].replace('_', '-')}.")
    drawn = {SAMPLING[option]: getattr(given, option) for option in named}
    keys = {key: value for key, value in drawn.items() if key != "seed"}
    if given.max_new_tokens is not None:
        keys["max_new_tokens"] = given.max_new_tokens
    if given.greedy or given.sample or drawn:
        keys["do_sample"] = not given.greedy
    try:
        return replace(config, **keys)
    except InputError as error:
        key = str(error).split()[0]
        option = key.removeprefix("eval.").removeprefix("sampling_").replace("_", "-")
        raise InputError(str(error).replace(key, f"--{option}")) from error


def _answers(
    run: FinishedRun, prompts: Sequence[str], config: EvalConfig, seed: int, given: argparse.Namespace
) -> dict[str, list[Generation]]:
    """What each model writes to each prompt."""
    from rich.console import Console

    from distil.data.base import ColumnsConfig
    from distil.data.prompting import ending_of, prompt_rows
    from distil.data.turns import in_turns
    from distil.engine.evaluation import answer_rows
    from distil.products import reevaluation
    from distil.system.progress import Progress

    data, context, system = run.config.data, given.context.strip(), given.system.strip()
    assert isinstance(data, ColumnsConfig)
    with Progress(Console(stderr=True)).spinner("loading"):
        pair = reevaluation.load_pair(run, teacher=given.teacher)
    ending, turns = ending_of(run.prompts), in_turns(run.prompts)
    rows = prompt_rows(data, run.shape, pair.tokenizer, prompts, ending, context, system, turns)
    _say_form(run, prompts, context, system, headed=any(row["headed"] for row in rows))
    longest, room = (
        max(len(row["prompt_ids"]) for row in rows),
        reevaluation.longest_row(pair.student, pair.teacher),
    )
    if longest >= room:
        raise InputError(f"--prompt has {longest} tokens; the model takes {room}, its answer included.")
    models = {"teacher": pair.teacher, "student": pair.student}
    return {
        who: answer_rows(model, rows, pair.tokenizer, config, seed, eos_ids=pair.eos_ids)
        for who, model in models.items()
        if model is not None
    }


def _say_form(run: FinishedRun, prompts: Sequence[str], context: str, system: str, *, headed: bool) -> None:
    """Say on stderr where prompts are more than a text, or lack what all those of the run had."""
    from distil.data.columns import Kind, has_input
    from distil.data.turns import in_turns, system_of

    chat = run.shape.kind is Kind.MESSAGES
    if headed:
        what = "has the headings of the training already"
        if chat or run.shape.template is not None:
            what = "is written in turns (system: …, user: …)" if chat else "data.prompt_template wrote"
        print(f"A prompt that {what} is taken as it stands.", file=sys.stderr)
    elif chat and in_turns(prompts):
        print(
            "A prompt that looks like turns (user: …) is asked as one message: no sample of the run has "
            "several.",
            file=sys.stderr,
        )
    if run.shape.context and not context and run.prompts and all(map(has_input, run.prompts)):
        print(
            f"The prompts of the training had a context each (column {run.shape.context}), and this has "
            "none: --context TEXT.",
            file=sys.stderr,
        )
    if (
        chat
        and not system
        and (theirs := system_of(run.prompts))
        and not all(system_of([each]) for each in prompts)
    ):
        short = len(theirs) <= SHOWN and "\n" not in theirs
        one = (
            f" One of them: --system {printable(shlex.quote(theirs))}"
            if short
            else " --system TEXT gives it."
        )
        print(
            f"The prompts of the training had a system message each, and this has none.{one}",
            file=sys.stderr,
        )


def _say_unended(answers: Sequence[Generation], limit: int) -> None:
    """Say on stderr how many answers stopped before their end, and what stopped them."""
    cut = [answer for answer in answers if not answer.ended]
    if not cut:
        return
    have = "The answer has" if len(answers) == 1 else f"{len(cut)} of {len(answers)} answers have"
    why = f"at most {limit} tokens are written (--max-new-tokens)"
    if all(answer.tokens < limit for answer in cut):
        why = "the model takes no more tokens"
    print(f"{have} no end: {why}.", file=sys.stderr)


def _print(prompts: Sequence[str], answers: Mapping[str, Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distil.report import palette
    from distil.report.terminal import SIDE_BY_SIDE, fitted

    console = Console()
    show = fitted(console)
    styles = {"teacher": palette.TEACHER.terminal, "student": palette.AFTER.terminal}
    for i, prompt in enumerate(prompts):
        if i:
            console.print()
        said = {who: Text(show(texts[i])) for who, texts in answers.items()}
        opening = Text.assemble(("prompt  ", "dim"), (show(prompt), "bold"))
        if len(said) > 1 and console.width >= SIDE_BY_SIDE:
            table = Table(
                box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True, padding=(0, 2, 0, 0)
            )
            for who in said:
                table.add_column(who, header_style=f"bold {styles[who]}", ratio=1, overflow="fold")
            table.add_row(*said.values())
        else:
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for who, text in said.items():
                table.add_row(Text(who, style=styles[who]), text)
        console.print(opening)
        console.print(table)
