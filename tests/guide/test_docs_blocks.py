"""Every block of README, CONTRIBUTING and docs/ runs, or is put to what reads it; links lead somewhere."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import operator
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from distil import cli, evaluation_cache
from distil.adapters.base import ADAPTERS
from distil.config.command_line import check_arguments, expand, flag_value, flags_first, is_sweep
from distil.config.help import conf_folder
from distil.config.store import prepared, register_schemas
from distil.report.comparison import command as comparing
from distil.teacher_cache import manifest
from distil.types import InputError
from scripts.draw_architecture import ROW, TEMPERATURE
from tests.browser import CHROMIUM, Browser
from tests.guide.world import build, supply

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLUGGED = ("adapters", "data", "methods", "metrics")
"""What the pages add from outside the package, by the folders that they put it in."""
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<fence>```+)(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Fenced:
    """One fenced block: where it stands, the comment over it, its language, its text."""

    page: str
    line: int
    mark: str
    language: str
    text: str


def fenced(page: Path) -> list[Fenced]:
    text = page.read_text(encoding="utf-8")
    return [
        Fenced(
            page.name, text.count("\n", 0, m.start("fence")) + 1, m["mark"] or "", m["language"], m["text"]
        )
        for m in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in fenced(page)]
FILES = [block for block in BLOCKS if block.mark.startswith("file: ") and block.page != "CONTRIBUTING.md"]
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.mark.startswith("file: ")]
BASH = [block for block in BLOCKS if block.language == "bash" and not block.mark.startswith("file: ")]


def label(block: Fenced) -> str:
    return f"{block.page}:{block.line}"


def test_every_block_says_what_it_is() -> None:
    """Nothing escapes this file by an unknown language."""
    known = {"python", "bash", "yaml", "json", "text", ""}
    assert {block.language for block in BLOCKS} <= known
    assert len(PYTHON) > 20
    assert len(BASH) > 20
    for block in BLOCKS:
        if block.language == "json":
            assert all(json.loads(line) for line in block.text.splitlines())
        if block.language == "":  # folders and the like: no program hides there
            assert not re.search(r"^\s*(python|pip|distil|import|from) ", block.text, re.MULTILINE), label(
                block
            )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models and rows under the names that the pages use, and the pages' own files."""
    folder = tmp_path_factory.mktemp("hub")
    build(folder)
    (folder / "models").mkdir()
    for name, real in {"teacher": "gpt2-medium", "student": "gpt2"}.items():
        (folder / "models" / name).symlink_to(folder / real)
    questions = [f"Name colour {i}." for i in range(40)]
    rows = [{"prompt": q, "ask": q, "reply": "Blue.", "response": "Blue."} for q in questions]
    for name in ("rows", "train", "validation", "test", "new"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "notes").mkdir()
    for part in range(4):
        sections = "".join(f"# {question}\n\nBlue.\n\n" for question in questions[part::4])
        (folder / "notes" / f"{part}.md").write_text(sections, encoding="utf-8")
    for block in FILES:
        path = folder / block.mark.removeprefix("file: ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    return folder


@pytest.fixture
def world(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which the names of the pages are files and folders."""
    for entry in hub.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- Python


def left_open(source: str) -> set[str]:
    """The names that a block never binds."""
    nodes = list(ast.walk(ast.parse(source)))
    bound = set(dir(builtins))
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
    return {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    } - bound


@pytest.mark.parametrize("block", PYTHON, ids=label)
def test_python_block_runs_alone(
    block: Fenced, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ADAPTERS, "_entries", dict(ADAPTERS.entries()))  # a page's own is for its block
    names = supply(left_open(block.text))
    exec(compile(block.text, label(block), "exec"), names)
    printed = capsys.readouterr().out
    following = BLOCKS[BLOCKS.index(block) + 1] if block is not BLOCKS[-1] else None
    if following is not None and following.mark == "output":
        assert printed == following.text


# ---- the command line


DOLLAR_QUOTES = re.compile(r"\$'([^']*)'")
"""What bash reads with backslashes as Python does, and shlex does not know."""


def _plain(found: re.Match[str]) -> str:
    return shlex.quote(found[1].encode().decode("unicode_escape"))


def commands(block: Fenced) -> list[list[str]]:
    """The commands of a block as words; comments are left out, `a && b` is two."""
    text = block.text.replace("\\\n", " ")
    lines = [shlex.split(DOLLAR_QUOTES.sub(_plain, line), comments=True) for line in text.splitlines()]
    found: list[list[str]] = []
    for words in filter(None, lines):
        found.append([])
        for word in words:
            if word == "&&":
                found.append([])
            else:
                found[-1].append(word)
    return found


def composed(arguments: list[str]) -> None:
    """Compose and check as ``distil run`` does, up to the point where the first job would start."""
    if {"--help", "--cfg"} & set(arguments):
        assert cli.main(["run", *arguments]) == 0
        return
    check_arguments(arguments)
    register_schemas()
    flags, overrides = flags_first(arguments)
    overrides = expand(overrides)
    if is_sweep(flags, overrides):
        planned(flags, overrides)
    elif flags:
        composed = cli._through_hydra([*flags, *overrides], [])
        assert composed is not None
        prepared(composed[0], arguments)
    else:
        prepared(cli._compose(overrides)[0], arguments)


def planned(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """The jobs of a sweep, all of them checked."""
    from hydra import initialize_config_dir

    from distil.sweeps import multirun

    found = flag_value(flags, "--config-dir")  # of an earlier command: a search leaves such a folder
    assert found is None or re.fullmatch(r"outputs/\w+/found", found)
    request = multirun.Request(conf_folder(), "config", overrides, "", "", cli.HYDRA_VERSION_BASE)
    with initialize_config_dir(str(conf_folder()), version_base=cli.HYDRA_VERSION_BASE):
        master = multirun._composed(request)
        search, _ = multirun._search(master)
        jobs = None if search else multirun._planned(master, Path("outputs/sweep"))[0]
    assert (search.total() if search else len(jobs or ())) > 1


def read(words: list[str]) -> None:
    """Put one command to what reads it, short of what would take long."""
    match words:
        case ["python", "run.py", *rest] | ["distil", "run", *rest]:
            composed(rest)
        case ["torchrun", str(option), "run.py", *rest] if option.startswith("--nproc_per_node="):
            composed(rest)
        case ["accelerate", "launch", "--config_file", file, "--num_processes", _, "run.py", *rest]:
            assert (ROOT / file).is_file(), file
            composed(rest)
        case ["sbatch", script, *rest]:
            assert Path(script).is_file(), script
            composed(rest)
        case ["distil", "report", _]:
            pass
        case ["distil", "compare", *rest]:
            assert comparing.parser().parse_args(rest).folders
        case ["distil", "doctor"]:
            assert cli.main(["doctor"]) == 0
        case ["distil", "cache", "info" | "verify" | "clear" as what]:
            assert cli.main(["cache", what]) == 0, "there is none, and that is said"
        case ["distil", verb, *rest]:
            with pytest.raises(
                InputError, match=r"RUN|--data|--folder"
            ) as refused:  # its folder and files are not there
                importlib.import_module(f"distil.verbs.{verb}").main(rest)
            assert not str(refused.value).startswith(f"distil {verb}:"), refused.value
        case ["make", target, *rest]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.MULTILINE)
            assert all(word.startswith("ARGS=") for word in rest)
        case ["pip", "install", "-e", requirement]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
                "optional-dependencies"
            ]
            match = re.fullmatch(r"\.\[([a-z,]+)\]", requirement)
            assert match is not None
            assert set(match[1].split(",")) <= set(extras)
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case ["tensorboard", "--logdir", _]:
            pass
        case ["git", "clone", *_] | ["cd", *_]:
            pass
        case _:
            raise AssertionError(f"nothing here reads {shlex.join(words)}")


@pytest.mark.parametrize("block", BASH, ids=label)
def test_commands_are_understood(block: Fenced, world: Path) -> None:
    for words in commands(block):
        while re.match(r"\w+=", words[0]):  # variables; plugins have a test of their own
            assert words[0].startswith(("DISTIL_PLUGINS=", "OMP_NUM_THREADS="))
            words = words[1:] if words[1:2] == ["make"] else []
            if not words:
                break
        if words:
            read(words)


def test_a_command_that_is_wrong_is_noticed(world: Path) -> None:
    """The check above can fail."""
    for wrong in ("method=kdd", "method.lambda=0.3", "-m method=kd,kdd"):
        with pytest.raises(InputError):
            read(["python", "run.py", *wrong.split()])
    with pytest.raises(AssertionError):
        read(["make", "docz"])


def plugged() -> list[list[str]]:
    """The commands of the pages that name a plugin, but for CONTRIBUTING's method and what make tests."""
    found = [
        words for block in BASH for words in commands(block) if words[0].startswith("DISTIL_PLUGINS=mine/")
    ]
    return [words for words in found if "jeffreys" not in " ".join(words)]


def plugins(words: Sequence[str]) -> str:
    return words[0].removeprefix("DISTIL_PLUGINS=")


def test_the_plugins_of_the_pages_run(world: Path) -> None:
    """Own method, metric, adapter and data together, by the pages' files and commands, through two steps."""
    found = plugged()
    assert [words[1:3] for words in found] == [["python", "run.py"]] * 4
    assert {plugins(words) for words in found} == {f"mine/{kind}" for kind in PLUGGED}
    arguments = [word for words in found for word in words[3:]]
    arguments += [
        "trainer.max_steps=2", "trainer.warmup_steps=0", "trainer.logging_steps=1", "eval.generation_rows=2",
        "eval.max_new_tokens=4", "data.validation_fraction=0.2",
    ]  # fmt: skip
    done = ran([str(ROOT / "run.py"), *arguments], world, os.pathsep.join(map(plugins, found)))
    assert done.returncode == 0, done.stderr
    (results,) = world.glob("outputs/*/fading-*/results.json")
    scores = json.loads(results.read_text(encoding="utf-8"))
    for model in ("teacher", "student_before", "student_after"):
        assert 0 <= scores[model]["questions"] <= 1
    logged = (results.parent / "metrics.jsonl").read_text(encoding="utf-8")
    assert "total_variation" in logged
    made = json.loads((results.parent / "student" / "adapter_config.json").read_text(encoding="utf-8"))
    assert made["peft_type"] == "VERA"
    samples = (results.parent / "report.html").read_text(encoding="utf-8")
    assert "Name colour" in samples


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark.endswith(".py")], ids=label)
def test_the_files_of_the_pages_pass_the_linter(block: Fenced) -> None:
    """As they would where the pages say to put them in the project."""
    place = ROOT / "distil" / block.mark.removeprefix("file: ").removeprefix("mine/")
    command = [sys.executable, "-m", "ruff", "check", "-q", "--no-cache", "--stdin-filename", str(place), "-"]
    done = subprocess.run(command, cwd=ROOT, input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def ran(arguments: list[str], folder: Path, plugins: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISTIL_PLUGINS": plugins}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_plugins_of_the_pages_pass_their_contracts(hub: Path) -> None:
    """The tests that the pages name, of what the pages add; the method has one of its own."""
    made = [words for block in BASH for words in commands(block) if words[1:3] == ["make", "test"]]
    named = {words[3].removeprefix("ARGS=") for words in made}
    tests = sorted(test for test in named if test != "tests/contract")
    assert [Path(test).stem for test in tests] == ["test_adapters", "test_metrics", "test_sources"]
    found = os.pathsep.join(str(hub / "mine" / kind) for kind in PLUGGED if kind != "methods")
    own = "vera or questions or markdown or refused_is_this or same_names or registered_is_known"
    chosen = ["-q", "-p", "no:cacheprovider", "-k", own, *tests, "tests/contract/test_options.py"]
    done = ran(["-m", "pytest", *chosen], ROOT, found)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 25


# ---- links and the site

SEARCH = """field = document.querySelector("[data-md-component=search-query]");
field.focus(); field.value = "temperature"; field.dispatchEvent(new Event("input", {bubbles: true}));
field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}))"""


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub and the site make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation_and_every_public_name_on_its_page() -> None:
    import llm_distil

    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"\b{re.escape(page.name)}$", site, re.MULTILINE), page.name
    shown = set(
        re.findall(r"^::: llm_distil\.(\w+)$", (ROOT / "docs" / "python-api.md").read_text(), re.MULTILINE)
    )
    assert shown == set(llm_distil.__all__) - {"losses", "metrics", "utils", "__version__"}


def test_readme_names_what_lies_beside_the_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in (evaluation_cache.FOLDER, manifest.FOLDER):
        assert f"`{folder}/`" in text


def test_the_guide_names_every_public_name() -> None:
    import llm_distil

    text = (ROOT / "docs" / "api-guide.md").read_text(encoding="utf-8")
    missing = [name for name in llm_distil.__all__ if name not in ("BaseDistillation", "__version__")]
    assert [name for name in missing if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("script", ["draw_divergences", "draw_architecture"])
def test_the_picture_is_what_the_code_draws(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("place", [stop.place for stop in (*ROW, *TEMPERATURE)])
def test_the_way_through_the_code_is_there(place: str) -> None:
    module, _, name = place.partition(":")
    found = operator.attrgetter(name)(importlib.import_module(module))
    assert found.__module__ == module, "drawn where it is written"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as ``make docs`` does: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_builds_strictly_and_fetches_nothing(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="?([^">\s]+)', text)
        fetched += re.findall(r'<link[^>]*rel="?(?:stylesheet|preload|icon|preconnect)"?[^>]*>', text)
        assert fetched
        assert not [address for address in fetched if re.search(r"(^|=\"?)(https?:)?//", address)], page.name


def test_the_site_shows_the_docstrings(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "python-api.html").read_text(encoding="utf-8"))
    assert "Both orders are understood" in text
    assert "Softens both distributions of every divergence" in text
    assert "mean over unmasked positions, in nats" in text
    assert "Unset" not in text, "a default is shown as a reader would write it"
    assert "temperature: float = 2.0" in text
    for section in ("Parameters:", "Returns:", "Raises:"):
        assert section in text


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt install chromium)")
def test_the_site_in_a_browser(site: Path, tmp_path: Path) -> None:
    """From a file address: pages fit desktop and phone, complain of nothing, fetch nothing; search finds."""
    browser = Browser(tmp_path)
    try:
        for page in ("index", "own-data", "configuration", "python-api", "objectives"):
            for width in (1280, 390):
                browser.open(site / f"{page}.html", width)
                overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert browser.evaluate(overflow) <= 0, (page, width)
                assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
                assert browser.complaints() == []
                assert [url for url in browser.requests() if not url.startswith("file:")] == []
        browser.open(site / "index.html", 1280)
        browser.evaluate(SEARCH)
        found = ""
        for _ in range(60):
            found = browser.evaluate("document.querySelector('.md-search-result').innerText")
            if "matching" in found:
                break
            time.sleep(0.5)
        assert "Configuration" in found
    finally:
        browser.close()
