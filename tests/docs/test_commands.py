"""Every command in the documentation can be typed as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from gpudev_client.cli.root import gpu_dev
from gpudev_service.app import GpuDevApp
from tests.docs.pages import PAGES, Block, blocks, inline, name, shell
from tests.tiers import ROOT

#: In backticks and no commands: an example of a token's note.
_OTHERS = {"gpu-dev on laptop"}
#: The reference of the command has usage lines, which are patterns.
_USAGE = ROOT / "docs" / "users" / "cli.md"
_GPU_DEV = re.compile(r"(?:^|[\s(/])gpu-dev (?P<rest>.*)")


def gpu_dev_lines() -> list[tuple[str, str]]:
    typed = [(where, found["rest"]) for where, line in shell() if (found := _GPU_DEV.search(line))]
    named = [
        (name(page), code.removeprefix("gpu-dev "))
        for page in PAGES
        if page != _USAGE
        for code in inline(page)
        if code.startswith("gpu-dev ") and code not in _OTHERS
    ]
    return typed + named


def words(rest: str) -> list[str]:
    """The arguments up to a pipe, a redirection, or the end of `$(...)`."""
    lexer = shlex.shlex(rest, posix=True, punctuation_chars="|<>;)")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if word[0] in "|<>;)":
            break
        found.append(word)
    return found


def parse(arguments: list[str]) -> None:
    """Parses as the command would, without doing anything."""
    command: click.Command = gpu_dev
    context: click.Context | None = None
    label = "gpu-dev"
    while True:
        context = command.make_context(label, list(arguments), parent=context)
        if not isinstance(command, click.Group):
            return
        arguments = [*context._protected_args, *context.args]
        if not arguments:
            return
        found, inner, arguments = command.resolve_command(context, arguments)
        assert inner is not None
        command, label = inner, str(found)


def test_there_are_commands_to_check() -> None:
    assert len(gpu_dev_lines()) > 20


@pytest.mark.parametrize(("where", "rest"), gpu_dev_lines())
def test_gpu_dev_takes_it(where: str, rest: str) -> None:
    parse(words(rest))


def test_a_wrong_verb_or_flag_would_be_found() -> None:
    for wrong in ("reserv -t t4", "reserve --gpu t4 --hour", "disk restore"):
        with pytest.raises(click.UsageError):
            parse(words(wrong))


def test_gpudev_has_the_subcommands_and_flags() -> None:
    lines = [line for _, line in shell()] + [code for page in PAGES for code in inline(page)]
    subcommands, flags = set(), set()
    for line in lines:
        if found := re.search(r"(?:^|/bin/)gpudev (?P<rest>[a-z-].*)", line):
            arguments = shlex.split(found["rest"])
            flags |= {a.partition("=")[0].lstrip("-") for a in arguments if a.startswith("--")}
            if not arguments[0].startswith("-"):
                subcommands.add(arguments[0])
    app = GpuDevApp()
    assert subcommands == set(app.subcommands)
    apps = [GpuDevApp, *(kind for kind, _ in app.subcommands.values())]
    known = {alias for each in apps for names in each.aliases for alias in _each(names)}
    known |= {flag for each in apps for flag in each.flags}
    assert flags
    assert not flags - known - {"help-all"}


def _each(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def test_make_has_the_targets() -> None:
    rules = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", rules, re.MULTILINE))
    targets |= {path.stem for path in (ROOT / "benchmarks").glob("[pr][0-9]*.py")}
    lines = [line for _, line in shell()] + [code for page in PAGES for code in inline(page)]
    named = {
        found[1]
        for line in lines
        if (found := re.search(r"(?:^|\s)make ([a-z0-9-]+)", line.strip()))
    }
    assert {"demo", "test", "docs"} <= named
    assert not named - targets


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shell_blocks_can_be_read_by_a_shell(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.body, text=True, check=True, timeout=60)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_compile(block: Block) -> None:
    compile(block.body, str(block), "exec")
