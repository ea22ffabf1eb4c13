"""What the documentation names is there, and what is there is named."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from traitlets.config import Config

import gpudev_client
from gpudev_client import errors, sdk
from gpudev_client.states import State
from gpudev_service.api.routes import BASE, ROUTES
from gpudev_service.config import GpuDev, GpuDevWeb
from gpudev_service.loops import LOOPS
from gpudev_service.operations import servers
from gpudev_service.settings import Policy, PolicyRule, Settings
from gpudev_spawner.local import GpuDevLocalSpawner
from tests.docs.pages import PAGES, blocks, inline, name, prose, rows, shell
from tests.tiers import _CHECKS, ROOT

DOCS = ROOT / "docs"
USERS, OPERATORS = DOCS / "users" / "guide.md", DOCS / "operators" / "guide.md"
ARCHITECTURE = DOCS / "contributing" / "architecture.md"
TRAITED = {
    "GpuDev": GpuDev,
    "GpuDevWeb": GpuDevWeb,
    "GpuDevMixin": GpuDevLocalSpawner,
    "GpuDevLocalSpawner": GpuDevLocalSpawner,
    "Spawner": GpuDevLocalSpawner,
}


def in_code(text: str) -> str:
    """The name in a cell with one name in backticks."""
    found = re.search(r"`([^`]+)`", text)
    assert found is not None, text
    return found[1]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_trait_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    found = re.findall(rf"\b({'|'.join(TRAITED)})\.([a-z_]+)\b(?!\()", text)
    assert not [f"{c}.{t}" for c, t in found if t not in TRAITED[c].class_trait_names(config=True)]


def test_every_setting_is_in_the_reference() -> None:
    text = (DOCS / "operators" / "configuration.md").read_text()
    wanted = [
        *(f"### GpuDev.{trait}" for trait in GpuDev.class_own_traits(config=True)),
        *(f"### GpuDevWeb.{trait}" for trait in GpuDevWeb.class_own_traits(config=True)),
        *(f"| `{key}` |" for key in (*Policy.model_fields, *PolicyRule.model_fields)),
    ]
    assert not [heading for heading in wanted if heading not in text]


def test_the_example_configuration_works() -> None:
    [block] = [b for b in blocks("python") if b.page == OPERATORS and "gpu_types" in b.body]
    settings = configured(block.body)
    assert set(settings.gpu_types) == {"a100", "cpu"}
    assert settings.policy.of({"research"}).max_hours == 48


def configured(text: str) -> Settings:
    config = Config()
    exec(text, {"get_config": lambda: config})  # noqa: S102 - the page's own example
    return GpuDev(config=config).settings()


def test_every_limit_of_a_policy_is_explained() -> None:
    named = [in_code(row[0]) for row in rows(OPERATORS, "GPU types, nodes, policy")]
    assert sorted(named) == sorted(PolicyRule.model_fields)


def test_every_loop_is_explained() -> None:
    assert [in_code(row[0]) for row in rows(OPERATORS, "What happens by itself")] == list(LOOPS)


def test_every_state_is_explained() -> None:
    assert [in_code(row[0]) for row in rows(USERS, "States")] == [str(state) for state in State]


def test_every_variable_of_a_server_is_explained() -> None:
    tree = ast.parse(inspect.getsource(servers.environment))
    given = {
        getattr(servers, key.id) if isinstance(key, ast.Name) else key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant | ast.Name)
    }
    assert {in_code(row[0]) for row in rows(USERS, "Work")} == given


def test_every_error_of_the_client_is_explained() -> None:
    named = {in_code(row[0]) for row in rows(DOCS / "users" / "python.md", "Errors")}
    raised = {
        word
        for word in gpudev_client.__all__
        if isinstance(kind := getattr(gpudev_client, word), type)
        and issubclass(kind, errors.GpuDevError)
    }
    assert named == raised - {"GpuDevError"}


def test_a_handle_has_what_python_readers_are_told() -> None:
    cells = [row[0] for row in rows(DOCS / "users" / "python.md", "A reservation as a block")]
    named = {code.partition("(")[0] for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    public = {word for word in vars(sdk.ReservationHandle) if not word.startswith("_")}
    public |= {word for word in vars(sdk._State) if not word.startswith("_")} | {"model"}
    assert named == public


def test_every_tier_is_explained() -> None:
    named = {row[0] for row in rows(ARCHITECTURE, "Tests")}
    assert named == {"none", "`slow`", *(f"`{tier}`" for tier in _CHECKS)}


def test_addresses_of_the_api_exist() -> None:
    text = "\n".join([*(line for _, line in shell()), *(prose(page) for page in PAGES)])
    base = re.escape(f"/services/gpudev{BASE}")
    paths = re.findall(rf"(?:{base}|\$API|\$GPUDEV_URL{BASE})(/[\w/.{{}}-]+)", text)
    assert len(paths) > 5
    known = [p for p in paths if any(r.match(p.rstrip(".")) is not None for r in ROUTES)]
    assert known == paths


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_of_the_project_that_are_named_exist(page: Path) -> None:
    paths = [
        code
        for code in inline(page)
        if re.fullmatch(r"(?:tests|tools|docs|gpudev_\w+|operations|api|loops)/[\w./-]*", code)
    ]
    below = (ROOT, ROOT / "gpudev_service")
    assert not [path for path in paths if not any((top / path).exists() for top in below)]
