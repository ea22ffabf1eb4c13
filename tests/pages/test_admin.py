"""The fleet for everybody, and what only admins may see and do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpudev_service.operations import overview
from gpudev_service.pages import fleet
from tests.fixtures.world import NODES
from tests.kube.site import site as kubernetes
from tests.kube.things import node

from .conftest import Site


async def test_the_fleet_keeps_other_peoples_secrets(site: Site) -> None:
    held = await site.world.reserve("grace", "t4-small", hours=5, name="grace-project")
    waiting = await site.world.reserve("grace", "t4-small", hours=3, name="grace-next")
    await site.world.reserve("ada", "t4-small", hours=2, name="mine")
    ada = await site.log_in("ada")
    page = await ada.open("fleet")
    for secret in ("grace", held.id, waiting.id):
        assert secret not in page.answer.text
    assert "GPU 0 in use until 17:00 UTC" in page.text
    assert "1 somebody 1 x t4-small 3 h starts at 17:01 UTC at the latest" in page.text
    assert "2 mine (you) 1 x t4-small 2 h" in page.text
    assert "This fleet is simulated" in page.text
    admin = await site.admin()
    page = await admin.open("fleet")
    assert "grace" in page.text
    assert page.link("grace").endswith(held.id)


async def test_many_nodes_and_a_long_queue_are_shown_in_parts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_NODES", 2)
    monkeypatch.setattr(fleet, "_QUEUE", 1)
    for user in ("linus", "grace", "linus", "ada"):
        await site.world.reserve(user, "t4-small", hours=1)
        site.world.clock.pass_time(seconds=1)
    ada, admin = await site.log_in("ada"), await site.admin()
    for who, path in ((ada, "fleet?hours=2"), (admin, "admin")):
        found: list[str] = []
        page = await who.open(path)
        while True:
            here = [node.name for node in NODES if node.name in page.text]
            found += here
            if "More nodes" not in page.links():
                break
            assert len(here) == 2
            page = await who.open(page.link("More nodes"))
        assert found == [node.name for node in NODES]
    page = await ada.open("fleet")
    assert "1 somebody 1 x t4-small" in page.text
    assert re.search(r"3 [^.]*\(you\) 1 x t4-small", page.text)
    assert "1 more reservation behind." in page.text


async def test_what_is_free_when_for_a_length(site: Site) -> None:
    await site.world.reserve("grace", "h100", gpus=6, hours=5)
    ada = await site.log_in("ada")
    page = await ada.open("fleet?hours=2.5")
    assert "1-2 GPUs : now" in page.text
    assert "3-8 GPUs : starts at 17:01 UTC at the latest" in page.text
    assert (await ada.open("fleet?hours=never")).status == 422


async def test_a_fleet_that_cannot_be_seen_says_so(site: Site, tmp_path: Path) -> None:
    async with kubernetes(tmp_path, node("a")) as there:
        site.world.ctx.settings = there.settings
        site.world.ctx.fleet = there.fleet
        ada, admin = await site.log_in("ada"), await site.admin()
        assert "nothing new starts" not in (await ada.open("fleet")).text
        there.freeze()
        for page in (await ada.open("fleet"), await admin.open("admin")):
            assert "The cluster's nodes were last seen" in page.text
            assert "Until it is seen again nothing new starts; leases that run go on" in page.text


async def test_a_person_is_not_let_in(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.open("admin")
    assert page.status == 403
    assert "This page is for admins of gpudev." in page.text
    assert "Admin" not in page.links()
    xsrf = {"_xsrf": (await ada.open("disks")).soup.body["data-xsrf"]}  # type: ignore[index]
    for path in ("admin/nodes/t4-1/drain", "admin/types/t4/maintenance", "admin/types/t4/end"):
        sent = {**xsrf, "reason": "x", "message": "x"}
        assert (await ada.post(path, sent)).status == 403  # type: ignore[arg-type]
    assert not any(
        node.drained for node in (await overview.cluster(site.world.ctx, "", lambda _: True)).nodes
    )


async def test_drain_and_use_again(site: Site) -> None:
    admin = await site.admin()
    page = await admin.send(await admin.open("admin"), "/nodes/t4-1/drain", reason="a fan")
    assert "t4-1 is drained" in str(page.result)
    assert "a fan" in (await admin.open("fleet")).text
    page = await admin.send(page, "/nodes/t4-1/undrain")
    assert page.result == "t4-1 is used again."
    page = await admin.send(page, "/nodes/t4-1/drain", reason="x" * 501)
    assert page.status == 422
    field = page.soup.find(id="drain-t4-1")
    assert field is not None
    assert field["value"] == "x" * 501
    assert page.soup.find(id="drain-t4-2")["value"] == ""  # type: ignore[index]


async def test_maintenance_of_a_type(site: Site) -> None:
    admin = await site.admin()
    page = await admin.send(
        await admin.open("admin"), "/types/h100/maintenance", message="kernel update"
    )
    assert page.result == "h100 takes no new reservations."
    ada = await site.log_in("ada")
    assert "No new reservations: kernel update" in (await ada.open("fleet")).text
    page = await admin.send(page, "/types/h100/end")
    assert page.result == "h100 takes reservations again."


async def test_everybodys_reservations_with_filters(site: Site) -> None:
    one = await site.world.reserve("grace", "t4", name="of grace")
    await site.world.reserve("ada", "h100", name="of ada")
    admin = await site.admin()
    page = await admin.open("admin")
    assert "of grace" in page.text
    assert "of ada" in page.text
    assert "of ada" not in (await admin.open("admin?user=grace")).text
    assert "of grace" not in (await admin.open("admin?gpu_type=h100")).text
    assert "No reservation matches." in (await admin.open("admin?state=active")).text
    assert (await admin.open("admin?state=gone")).status == 422
    page = await admin.open(f"reservations/{one.id}/cancel")
    await admin.send(page, "/cancel", reason="the node is needed")
    await site.world.sweep()
    grace = await site.log_in("grace")
    assert "the node is needed" in (await grace.open()).text


@pytest.mark.parametrize("path", ["admin/nodes/nowhere/drain", "admin/types/none/maintenance"])
async def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    admin = await site.admin()
    xsrf = str((await admin.open("admin")).soup.body["data-xsrf"])  # type: ignore[index]
    page = await admin.post(path, {"_xsrf": xsrf, "reason": "x", "message": "x"})
    assert page.status in {404, 422}


async def test_a_group_lead_sees_the_groups_names_only(site: Site) -> None:
    await site.world.reserve("grace", "t4", name="lab work", groups=("lab",))
    await site.world.reserve("mallory", "t4", name="other work")
    lead = await site.log_in("leo", ["custom:gpudev:read!user=leo", "custom:gpudev:read!group=lab"])
    page = await lead.open("fleet")
    assert "grace" in page.text
    assert "mallory" not in page.answer.text
