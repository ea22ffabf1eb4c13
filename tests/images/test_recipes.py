"""Dockerfiles: clean, pinned, not root; each with a health check and a bill of materials."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from tests.tiers import ROOT

IMAGES = ("hub", "service", "singleuser")
RECIPES = sorted(
    [*ROOT.glob("images/*/Dockerfile"), *ROOT.glob("tests/cluster/images/*/Dockerfile")]
)
#: Which extras an image installs, and the lock file with the same.
EXTRAS = {
    "hub": {"hub", "kubernetes", "oauth"},
    "service": {"service", "kubernetes"},
    "singleuser": {"lab"},
}


def recipe(name: str) -> str:
    return (ROOT / "images" / name / "Dockerfile").read_text()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nUSER root\n")
    done = subprocess.run(
        ["hadolint", str(bad)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "DL3007" in done.stdout


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_the_base_is_an_argument_and_pinned(path: Path) -> None:
    text = path.read_text()
    default = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert default
    tag = default[1].partition("@")[0].rpartition(":")[2]
    assert re.search(r"\d", tag), f"{default[1]} can change under its name"
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_it_ends_as_a_user_without_rights_by_number(path: Path) -> None:
    users = re.findall(r"^USER (\S+)$", path.read_text(), re.MULTILINE)
    assert users
    # By number: the kubelet cannot see of a name whether it is root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_what_it_copies_is_in_the_context(path: Path) -> None:
    """`.dockerignore` leaves out all but what it names; the builds of the tests do not ask it."""
    text = path.read_text()
    copied = re.findall(r"source=([^,\s]+)", text)
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        copied += line.split()[:-1]
    everything, *named = (ROOT / ".dockerignore").read_text().splitlines()
    assert everything == "*"
    kept = [pattern.removeprefix("!") for pattern in named]
    for each in copied:
        above = [each, *map(str, Path(each).parents)]
        assert any(fnmatch(one, pattern) for one in above for pattern in kept), each


@pytest.mark.parametrize("image", IMAGES)
def test_it_has_a_health_check_and_a_bill_of_materials(image: str) -> None:
    text = recipe(image)
    assert re.search(r"^HEALTHCHECK .*\n?.*CMD \[", text, re.MULTILINE)
    assert f"sbom.py gpudev-{image} /usr/share/gpudev/sbom.cdx.json" in text


@pytest.mark.parametrize("image", IMAGES)
def test_packages_of_python_are_pinned_with_hashes(image: str) -> None:
    text = recipe(image)
    installs = (ROOT / "images" / "add.py").read_text() if image == "hub" else text
    assert "--require-hashes" in installs
    assert f"COPY requirements/{image}.txt" in text
    extras = re.search(r"'gpudev\[([a-z,]+)\]'", text)
    assert extras
    assert set(extras[1].split(",")) == EXTRAS[image]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in EXTRAS[image] for line in project["optional-dependencies"][extra]),
    ]
    named = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in wanted}
    lock = (ROOT / "requirements" / f"{image}.txt").read_text()
    assert named <= set(re.findall(r"^([\w.-]+)==\S+", lock, re.MULTILINE))


def test_all_images_have_the_hub_that_the_jupyterhub_chart_has() -> None:
    versions = {
        re.search(
            r"^jupyterhub==(\S+)", (ROOT / f"requirements/{each}.txt").read_text(), re.MULTILINE
        )[1]  # type: ignore[index]
        for each in IMAGES
    }
    assert len(versions) == 1
    assert versions.pop().startswith("5.")


def test_the_server_has_sshd_and_what_people_copy_with() -> None:
    for package in ("openssh-server", "rsync", "git"):
        assert re.search(rf"[ \\n]{package}[ \\n]", recipe("singleuser"))
    # Host keys come with the disk; those of a build would be everybody's.
    assert "/etc/ssh/ssh_host_*" in recipe("singleuser")
    assert "nvidia-ml-py==" in (ROOT / "requirements/singleuser.txt").read_text()


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "images" / "sbom.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_names_debians_and_pythons_packages(sbom: ModuleType) -> None:
    bill = sbom.document(
        "gpudev-service", sbom.debian("openssl\t3.0.17-1~deb12u2\tamd64\n") + sbom.python()
    )
    urls = {each["purl"] for each in bill["components"]}
    assert "pkg:deb/debian/openssl@3.0.17-1~deb12u2?arch=amd64" in urls
    assert any(url.startswith("pkg:pypi/pydantic@2.") for url in urls)
    references = [each["bom-ref"] for each in bill["components"]]
    assert len(references) == len(set(references))
    assert references == sorted(references)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    json.dumps(bill)


def test_the_bill_needs_nothing_that_is_not_there(sbom: ModuleType) -> None:
    """It runs in images that have Python's standard library and no more."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"exec(open({sbom.__file__!r}).read(), {{'__name__': 'x'}})",
        ],
        check=False,
    )
    assert done.returncode == 0
