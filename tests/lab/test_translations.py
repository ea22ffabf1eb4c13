"""The panel's translations: each has every sentence of the panel, and JupyterLab finds it."""

from __future__ import annotations

import ast
import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from jupyterlab_server import translation_utils

import gpudev_lab
from tests.tiers import ROOT

LOCALES = Path(gpudev_lab.__file__).parent / "locale"
CATALOGUES = sorted(LOCALES.glob("*/LC_MESSAGES/gpudev_lab.json"))

_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_WHOLE = rf"(?:{_TEXT})(?:\s*\+\s*(?:{_TEXT}))*"
_ONE = re.compile(rf"\.__\(\s*({_WHOLE})")
_MANY = re.compile(rf"\._n\(\s*({_WHOLE})\s*,\s*({_WHOLE})")
_CALL = re.compile(r"\.(?:__|_n)\(")


def value(text: str) -> str:
    return "".join(ast.literal_eval(part) for part in re.findall(_TEXT, text))


def sentences() -> dict[str, int]:
    """What the panel says, by the gettext names of JupyterLab's conventions; with how many forms
    each has."""
    found = {}
    for path in sorted((ROOT / "labextension" / "src").glob("*.ts*")):
        text = path.read_text()
        if path.name.endswith(".spec.ts"):
            continue
        one = [value(match[1]) for match in _ONE.finditer(text)]
        many = [value(match[1]) for match in _MANY.finditer(text)]
        assert len(one) + len(many) == len(_CALL.findall(text)), f"{path.name}: no plain text"
        found.update({**dict.fromkeys(one, 1), **dict.fromkeys(many, 2)})
    return found


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_a_catalogue_has_every_sentence_of_the_panel(path: Path) -> None:
    known: dict[str, Any] = json.loads(path.read_text())
    head = known.pop("")
    assert (head["domain"], head["language"]) == (
        "gpudev_lab",
        path.parent.parent.name.replace("_", "-"),
    )
    assert head["plural_forms"]
    assert {name: len(forms) for name, forms in known.items()} == sentences()
    for name, forms in known.items():
        wanted = set(re.findall(r"%\d", name))
        assert all(set(re.findall(r"%\d", form)) - {"%1"} <= wanted for form in forms)
        assert wanted <= set(re.findall(r"%\d", forms[-1])), name
        assert all(forms), name


def test_jupyterlab_finds_them() -> None:
    [entry] = [one for one in entry_points(group="jupyterlab.locale") if one.name == "gpudev_lab"]
    assert entry.load() is gpudev_lab
    found, trouble = translation_utils.get_installed_packages_locale("de_DE")
    assert not trouble
    assert found["gpudev_lab"]["Give them back"] == ["Zurückgeben"]
