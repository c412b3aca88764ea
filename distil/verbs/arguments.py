"""Command lines of verbs: argparse, whose complaints are InputErrors and whose help is only text."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from distil.config.command_line import split_override
from distil.registry import nearest
from distil.system.limits import IMPORTS, check_addresses
from distil.system.printable import printable
from distil.types import InputError

HELP = ("--help", "-h")
SECOND = ("--output", "--data")
"""Flags for what stands second on other programs' command lines."""


class Parser(argparse.ArgumentParser):
    """``distil VERB``: exits nowhere, abbreviates nothing."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"distil {verb}",
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def may_trust(self) -> None:
        """Add the flag without which no code that lies beside a run's models is run."""
        self.add_argument(
            "--trust-remote-code", action="store_true", help="run the Python files beside the run's models"
        )

    def error(self, message: str) -> NoReturn:
        """What argparse cannot read."""
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")

    def _flag(self, key: str, value: str) -> str:
        """A question that names the flag for what a run calls ``key``; where none is like it, the help."""
        group, _, name = key.rpartition(".")
        own = f"--{name.replace('_', '-')}"
        flag = own if own in self._option_string_actions else f"--{group}"
        if flag not in self._option_string_actions:
            return f" See {self.prog} --help."
        return f" Did you mean {flag} {shlex.quote(value)}?"

    def refuse_keys(self, words: Sequence[str]) -> None:
        """Refuse ``key=value``, as a run takes it, among ``words``. Raises InputError that names the flag."""
        for word in words:
            if (pair := split_override(word)) is not None:
                raise InputError(
                    f"{self.prog}: {word} is a key of a run, and this takes flags.{self._flag(*pair)}"
                )

    def read(self, arguments: Sequence[str]) -> argparse.Namespace | None:
        """The arguments; None where help was asked for, and shown."""
        if any(word in HELP for word in arguments):
            print(self.format_help(), end="")
            return None
        known = self._option_string_actions
        for word in arguments:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in known and (near := nearest(flag, known, 0.8)):
                raise InputError(f"{self.prog}: {flag} is no flag. Did you mean {near}?")
        given, odd = self.parse_known_intermixed_args(arguments)  # words after flags count, too
        self.refuse_keys(odd[:1])
        if odd:
            takes = next((flag for flag in SECOND if flag in known and not odd[0].startswith("-")), None)
            if takes:
                second = shlex.quote(odd[0])
                raise InputError(
                    f"{self.prog} takes one folder; {second} is a second. Did you mean {takes} {second}?"
                )
            self.error(f"unrecognized arguments: {shlex.join(odd)}")
        return given


def begin(doing: str, folder: Path) -> None:
    """Say what begins, before the libraries are imported that it needs: that alone takes many seconds.

    Raises InputError where a limit of addresses keeps them from being imported.
    """
    check_addresses(IMPORTS, "importing torch and transformers")
    print(f"{doing} {folder}: libraries and models load first.", file=sys.stderr, flush=True)


def warn(folder: Path, damaged: Sequence[str]) -> None:
    """A line for each thing that is not as the run in ``folder`` left it."""
    for line in damaged:
        print(printable(f"warning: {folder}: {line}."), file=sys.stderr)


def whole(least: int) -> Callable[[str], int]:
    """Argparse type: a whole number from ``least`` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    number.__name__ = "whole number"  # argparse's own message says it
    return number
