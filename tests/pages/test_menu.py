"""The menu of gpudev's pages is the Hub's own, as far as a login at gpudev tells."""

from __future__ import annotations

import httpx
import pytest
from bs4 import BeautifulSoup

from gpudev_service.pages import menu
from tests.fixtures.hub import ADMIN, RunningHub

#: What the Hub's own pages have beside it from gpudev.
OURS = {"Reserve GPUs", "My reservations"}


@pytest.mark.parametrize(
    ("scopes", "names"),
    [
        ([], ["gpudev"]),
        (["access:services!service=gpudev", "custom:gpudev:read"], ["gpudev"]),
        (["access:services!service=wiki", "access:servers!server=ada/"], ["gpudev", "wiki"]),
    ],
)
def test_services_that_the_login_may_open_stand_in_the_menu(
    scopes: list[str], names: list[str]
) -> None:
    found = menu.services(scopes, "/hub name/services/gpudev/")
    assert [entry.name for entry in found] == names
    assert [entry.href for entry in found] == [f"/hub name/services/{name}/" for name in names]
    assert [entry.name for entry in found if entry.here] == ["gpudev"]


def links(http: httpx.Client, address: str) -> set[tuple[str, str]]:
    """Words and addresses of the first navigation bar, without the logo."""
    soup = BeautifulSoup(http.get(address).text, "html.parser")
    bar = soup.find("nav")
    assert bar is not None
    found = {(a.get_text(strip=True), str(a["href"])) for a in bar.find_all("a")}
    return {(words, href) for words, href in found if words and href != "#"}


@pytest.mark.hub
@pytest.mark.parametrize("viewer", ["menu-ada", ADMIN])
def test_the_menu_is_the_hubs_own(running_hub: RunningHub, viewer: str) -> None:
    hub = running_hub
    if viewer != ADMIN:
        hub.user(viewer)
    with hub.browser(viewer) as http:
        theirs = {link for link in links(http, f"{hub.url}/hub/home") if link[0] not in OURS}
        assert links(http, f"{hub.service}/") == theirs
    assert ("Admin" in {words for words, _ in theirs}) == (viewer == ADMIN)
    assert {"Home", "Token", "gpudev", "Logout"} <= {words for words, _ in theirs}
