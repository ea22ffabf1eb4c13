"""One word for one thing: what people read never uses a rival word or a second spelling.

Read are the pages' templates and scripts, the command line's help, the API's description, and every
sentence in the code that runs on a person's or an operator's behalf, log messages too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import jinja2
import pytest

from gpudev_client.cli.root import gpu_dev
from gpudev_client.states import State
from gpudev_service.api import openapi
from gpudev_service.api.routes import ROUTES
from tests.tiers import ROOT

#: Traces in the Standard Workload Format have jobs, to which processors are allocated.
OF_TRACES = ("simulate/swf.py", "simulate/requests.py")
PACKAGES = ("gpudev_client", "gpudev_service", "gpudev_spawner", "gpudev_hub_config")


@dataclass(frozen=True)
class Rule:
    """A word that is not used, what is said in its place, and where it means something else."""

    rival: str
    ours: str
    #: Phrases, as regular expressions, in which the word is right; each with its reason beside it.
    unless: tuple[str, ...] = ()


RULES = (
    Rule(r"cancel(ed|ing|ations?)", "cancelled, cancelling, cancellation"),
    Rule(r"jobs?", "reservation"),
    Rule(r"instances?", "server", unless=(r"for instance",)),
    Rule(
        # Pods, containers and volumes are Kubernetes' own words for what a server and a disk are
        # made of there.
        r"(notebook|jupyter) servers?|workspaces?",
        "server",
    ),
    Rule(
        r"machines?|hosts?",
        "node",
        unless=(
            # The one where the command, or the Hub, runs: no part of the fleet is meant.
            r"this machine",
            r"the machine's clock",
            # Where a person types `gpu-dev login`.
            r"on a machine without a name",
            # Parts of an address.
            r"a host and a port",
            r"://\S*HOST\S*",
            # OpenSSH's own words, where OpenSSH is meant.
            r"host keys?",
            r"SSH host",
            r"Host\s+(pattern|gpudev|rank-)\S*",
            r"no host of gpudev",
            r"`known_hosts`\s+without the host",
        ),
    ),
    Rule(r"allocat(e|es|ed|ing|ion|ions)", "lease; placement"),
    Rule(r"rent(s|ed|al)?|tenanc(y|ies)", "lease"),
    Rule(r"drives?|home (folder|volume)s?", "disk"),
    Rule(r"restore points?|images? of (the|a|your) disk", "snapshot"),
    Rule(r"wait(ing)?[- ]?lists?|backlogs?", "queue"),
    Rule(r"gpu[- ](kind|model|class|flavou?r)s?|accelerators?|flavou?rs?", "GPU type"),
    Rule(r"(?-i:gpu types?|Gpu [Tt]ypes?|GPU Types?|GPU-types?)", "GPU type"),
    Rule(r"inventory|farms?", "fleet"),
    Rule(r"invitees?|sharers?|team ?mates?|co-?owners?", "collaborator"),
    Rule(r"appointments?|pre-?reservations?|scheduled reservations?", "booking"),
    Rule(r"(?-i:jupyter ?hub|Jupyterhub|jupyter lab|Jupyterlab|Jupyter Hub|Jupyter Lab)", "names"),
)


def rivals(text: str) -> list[str]:
    """Rival words in a text, each with what to say: "jobs (say: reservation)"."""
    found = []
    for rule in RULES:
        rest = text
        for phrase in rule.unless:
            rest = re.sub(phrase, " ", rest)
        hits = re.finditer(rf"(?<![\w/.`$-])({rule.rival})(?![\w`=-]|\.\w)", rest, re.IGNORECASE)
        found += [f"{hit[0]} (say: {rule.ours})" for hit in hits]
    return found


# --- what is read ---------------------------------------------------------------------------------


class _Visible(HTMLParser):
    """Text and those attributes that are shown or read aloud."""

    SHOWN = frozenset({"title", "alt", "placeholder", "aria-label", "data-confirm", "content"})

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._code = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "code", "pre"):
            self._code = tag
        shown = [value for key, value in attrs if value and key in self.SHOWN]
        if tag in ("input", "button"):
            shown += [value for key, value in attrs if key == "value" and value and " " in value]
        self.texts += shown

    def handle_endtag(self, tag: str) -> None:
        if tag == self._code:
            self._code = ""

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.texts.append(data)


def of_template(source: str) -> Iterator[str]:
    """What a page shows, and the sentences inside its expressions."""
    kept: list[str] = []
    for _, kind, value in jinja2.Environment(autoescape=True).lex(source):
        if kind == "data":
            kept.append(value)
        elif kind == "string":
            yield value[1:-1]
        elif kind in ("variable_end", "block_end"):
            kept.append(" ")
    reader = _Visible()
    reader.feed("".join(kept))
    yield from reader.texts


_SCRIPT = re.compile(
    r"""//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)""", re.DOTALL
)


def of_script(source: str) -> Iterator[str]:
    """The sentences among a script's strings: those with a space."""
    for match in _SCRIPT.finditer(source):
        if match[1] and " " in match[1]:
            yield re.sub(r"\$\{[^}]*\}", " ", match[1][1:-1])


def of_module(source: str) -> Iterator[str]:
    """The sentences among a module's strings; documentation for its readers is none."""
    tree = ast.parse(source)
    prose = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) and node not in prose else None
        if isinstance(value, str) and " " in value.strip():
            yield value


def of_command(command: click.Command, name: str) -> Iterator[str]:
    """The help of a verb and of all below it."""
    context = click.Context(command, info_name=name, max_content_width=200)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None
            yield from of_command(below, f"{name} {verb}")


def of_document(value: Any) -> Iterator[str]:
    """Descriptions, summaries and titles of an OpenAPI document."""
    if isinstance(value, list):
        for item in value:
            yield from of_document(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("description", "summary") and isinstance(item, str):
                yield item
            else:
                yield from of_document(item)


def _files(suffix: str) -> list[Path]:
    found = [path for name in PACKAGES for path in sorted((ROOT / name).rglob(f"*{suffix}"))]
    found = [path for path in found if not path.as_posix().endswith(OF_TRACES)]
    return [path for path in found if "migrations" not in path.parts]


READERS = {".html": of_template, ".js": of_script, ".py": of_module}


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", READERS)
def test_no_rival_words_in_what_people_read(suffix: str) -> None:
    files = _files(suffix)
    texts = [(path, text) for path in files for text in READERS[suffix](path.read_text())]
    # Whoever reads nothing finds nothing.
    assert len(files) >= 5, files
    assert len(texts) > 20 * (suffix != ".js")
    wrong = [f"{path.relative_to(ROOT)}: {w}" for path, text in texts for w in rivals(text)]
    assert wrong == []


def test_no_rival_words_in_the_help_of_the_command() -> None:
    texts = list(of_command(gpu_dev, "gpu-dev"))
    assert any("--gpu-type" in text for text in texts)
    assert [(text.splitlines()[0], word) for text in texts for word in rivals(text)] == []


def test_no_rival_words_in_the_description_of_the_api() -> None:
    texts = list(of_document(openapi.document(ROUTES, "/")))
    assert len(texts) > 100
    assert [(text, word) for text in texts for word in rivals(text)] == []


def test_states_are_called_as_everywhere() -> None:
    words = "scheduled queued preparing active stopping expired cancelled failed"
    assert [state.value for state in State] == words.split()


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("Your reservation was canceled.", "canceled"),
        ("Canceling takes a moment", "Canceling"),
        ("2 jobs wait before yours", "jobs"),
        ("The instance did not come up.", "instance"),
        ("All machines are drained", "machines"),
        ("an allocation of 4 GPUs", "allocation"),
        ("Choose a gpu type", "gpu type"),
        ("You are on the waiting list.", "waiting list"),
    ],
)
def test_a_planted_word_is_found(planted: str, found: str) -> None:
    said = f"{found} (say: "
    assert [word[: len(said)] for word in rivals(planted)] == [said]
    page = f'<p class="job">{{{{ name }}}}</p><p>{planted}</p>'
    script = f'// one job\nconst where = "job", said = `{planted}`;'
    module = f'"""Many jobs."""\nsaid = f"{planted} {{x}}"\n'
    for reader, source in ((of_template, page), (of_script, script), (of_module, module)):
        assert [word for text in reader(source) for word in rivals(text)] == rivals(planted)


def test_a_planted_word_is_found_in_expressions_attributes_and_help() -> None:
    expression = '<b title="{{ t }} of a job">{{ "an instance" if x else "a server" }}</b>'
    assert len([word for text in of_template(expression) for word in rivals(text)]) == 2

    @click.command(help="Shows all jobs.")
    @click.option("--kind", help="The GPU model.")
    def planted(kind: str) -> None: ...

    words = [word for text in of_command(planted, "planted") for word in rivals(text)]
    assert len(words) == 2
    document = {"paths": {"/x": {"get": {"summary": "One job."}}}}
    assert [word for text in of_document(document) for word in rivals(text)]


@pytest.mark.parametrize(
    "right",
    [
        "Cancelled by ada. A cancellation is final; cancelling again is refused.",
        "The browser must run on this machine.",
        "http://127.0.0.1:8000 needs a host and a port",
        "GPU type t4, 2 nodes, disk thesis",
        "for instance 0.5",
        "The server's public host keys, as lines of `known_hosts` without the host.",
    ],
)
def test_right_words_are_left_alone(right: str) -> None:
    assert rivals(right) == []
