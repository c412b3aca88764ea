"""The comparison in the terminal: what differs first, then scores with their differences, then the cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distil.report import words as run_words
from distil.report.comparison import words
from distil.report.comparison.compare import Comparison
from distil.report.comparison.style import group_hues
from distil.report.comparison.table import BETTER, EITHER, WORSE, Column
from distil.report.terminal import LONGEST, NOTE, Show, fitted
from distil.system.printable import one_line

VERDICTS = {BETTER: "green", WORSE: "red"}
ALIKE = "≈"
NAME = 24
"""Letters of the name of the best: the column of names holds all of it."""
MANY = 24
"""Groups shown in the terminal; the files hold all."""
FEW = 4
"""Differences of one harmless kind that are shown with their values."""


def print_comparison(comparison: Comparison, console: Console, folder: Path | None = None) -> None:
    """Print ``comparison``, and where its files lie (``folder``)."""
    show = fitted(console)

    def say(text: str, style: str = "") -> None:
        console.print(Text(show(text), style=style))

    say(words.heading(comparison), "bold")
    for line, style in _first(comparison):
        say(line, style)
    console.print()
    shown_columns = words.columns_of(comparison)
    if line := words.asked_budget(comparison):
        say(line)
        console.print()
    for columns in (shown_columns, comparison.costs):
        for chunk in _chunks(comparison, columns, console.width, show):
            console.print(_table(comparison, chunk, show, references=columns is comparison.columns))
            console.print()
    if line := words.cost_line(comparison):
        say(line, "dim")
    say(words.explanation(comparison) + ("" if comparison.unranked else f" {ALIKE}: {EITHER}."), "dim")
    if len(comparison.groups) > MANY:
        say(f"{len(comparison.groups) - MANY} more groups are in the files.", "dim")
    for sentence in words.verdicts(comparison):
        say(sentence)
    for note in comparison.notes:
        say(f"Note: {one_line(note, NOTE)}", "dim")
    for name in ("html", "md", "csv", "json"):
        if folder is not None and (path := folder / f"comparison.{name}").is_file():
            console.print(Text.assemble(("comparison  ", "dim"), (show(str(path)), "bold")))


def _first(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What must be said before any number."""
    for reason in comparison.unranked:
        yield f"Not ranked: {reason}", "bold red"
    for each in comparison.confounds:
        yield f"CONFOUND  {one_line(each.text, LONGEST)}", "bold yellow"
    if comparison.runs > 1 and not comparison.confounds:
        yield "Nothing differs but what was swept and what belongs to it.", ""
    for kind, what in _KINDS.items():
        told = [each for each in comparison.differences if each.kind == kind]
        if len(told) > FEW:
            yield f"{what}  {one_line(', '.join(_folded([each.key for each in told])), LONGEST)}", "dim"
        else:
            yield from ((f"{what}  {one_line(each.text, LONGEST)}", "dim") for each in told)
    for line in (words.evaluated_line(comparison), words.held_line(comparison)):
        if line:
            yield line, ""
    for left in comparison.left_out:
        yield f"Left out  {left.run}: {one_line(left.why, NOTE)}", "yellow"


def _folded(keys: Sequence[str]) -> Iterator[str]:
    """``keys``, those of one group together where there are many: ``peft.* (13 keys)``."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.partition(".")[0], []).append(key)
    for group, inside in groups.items():
        yield from inside if len(inside) <= FEW else [f"{group}.* ({len(inside)} keys)"]


_KINDS = {"declared": "tuned, declared", "own": "its own", "seed": "moves with the seed"}


def _chunks(
    comparison: Comparison, columns: Sequence[Column], width: int, show: Show
) -> Iterator[tuple[Column, ...]]:
    """``columns`` in as many tables as the width of the console asks for."""
    label = max(len(show(group.label)) for group in comparison.groups)
    room = max(20, width - min(max(label, len("student before")), width // 3) - 6)
    chunk: list[Column] = []
    used = 0
    for column in columns:
        need = max(len(words.title(column)), len(words.unit(column)), *map(len, _texts(column))) + 2
        if chunk and used + need > room:
            yield tuple(chunk)
            chunk, used = [], 0
        chunk.append(column)
        used += need
    if chunk:
        yield tuple(chunk)


def _texts(column: Column) -> Iterator[str]:
    yield _best(column)
    for cell in column.cells.values():
        yield f"{words.mean(cell, column)} {words.MARK}"
        yield f"{words.difference(cell, column)} {_sign(cell.verdict)}"


def _best(column: Column) -> str:
    return words.middle_cut(one_line(words.best(column)), NAME)


def _sign(verdict: str) -> str:
    """A verdict in the width of one word."""
    return {BETTER: "better", WORSE: "worse"}.get(verdict, ALIKE if verdict else "")


def _table(comparison: Comparison, columns: Sequence[Column], show: Show, references: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    table.add_column("n", justify="right", style="dim")
    for column in columns:
        head = Text(show(words.title(column)))
        if unit := words.unit(column):
            head.append(show(f"\n{unit}"), style="dim")
        table.add_column(head, justify="left", no_wrap=True)
    if references:
        for who, scores in comparison.references.items():
            values = [scores.get(column.metric.name) for column in columns]
            if not any(value is not None for value in values):
                continue
            cells = [
                "" if value is None else run_words.score(value, column.metric)
                for value, column in zip(values, columns, strict=True)
            ]
            table.add_row(Text(who, style="dim"), "", *(Text(show(cell), style="dim") for cell in cells))
    hues = group_hues(comparison)
    for group in comparison.groups[:MANY]:
        name = Text(show(group.label), style=f"bold {hues[group.label].terminal}")
        table.add_row(name, str(len(group.runs)), *(_cell(column, group.label, show) for column in columns))
    if not comparison.unranked and len(comparison.groups) > 1:
        table.add_section()
        lines = (Text(show(_best(column)), style="dim") for column in columns)
        table.add_row(Text("best", style="dim"), "", *lines)
    return table


def _cell(column: Column, group: str, show: Show) -> Text:
    cell = column.cells[group]
    best = column.best == group
    text = Text(show(words.mean(cell, column)), style="bold" if best else "")
    if best:
        text.append(show(f" {words.MARK}"))
    if line := words.difference(cell, column):
        sign = _sign(cell.verdict)
        text.append(show(f"\n{line} "), style="dim")
        text.append(show(sign), style=VERDICTS.get(cell.verdict, "dim"))
    return text
