"""Disks without JavaScript: make, look, change, lose and find again."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from gpudev_service.actor import Actor
from gpudev_service.operations import disks

from .conftest import Site
from .visitor import Seen, Visitor

ADA = Actor("ada")


async def folder_of(site: Site, name: str) -> Path:
    """Where the disk's files are."""
    async with site.world.ctx.store.reading() as session:
        row = await disks.require(session, "ada", name)
    return site.world.ctx.disks.path(row.id)


async def settled(site: Site, visitor: Visitor, name: str) -> Seen:
    await site.world.ctx.background.settle()
    return await visitor.open(f"disks/{name}")


async def test_create_rename_delete_and_restore(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open("disks"), "/disks", name="work")
    assert page.result == "The disk work is there."
    page = await ada.send(page, "/rename", name="Work.2")
    assert page.result == "work is called Work.2 now."
    page = await ada.open(page.link("Delete"))
    assert "It can be restored for 30 days." in page.text
    page = await ada.send(page, "/delete")
    assert "deleted" in str(page.result)
    assert "can be restored until Tue 31 Mar 12:00 UTC" in page.text
    page = await ada.send(page, "/undelete")
    assert page.result == "The disk Work.2 is back."


async def test_a_refused_name_comes_back_with_the_reason(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open("disks"), "/disks", name="no spaces")
    assert page.status == 422
    field = page.soup.find(id="create-name")
    assert field is not None
    assert field["value"] == "no spaces"
    problem = page.soup.find(id="create-name-problem")
    assert problem is not None
    page = await ada.send(page, "/disks", name="work")
    page = await ada.send(await ada.open("disks"), "/disks", name="work")
    assert page.status == 409
    assert "You already have a disk" in page.text


async def test_snapshot_browse_clone_and_go_back(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.send(await ada.open("disks"), "/disks", name="work")
    folder = await folder_of(site, "work")
    result = folder / "runs" / "one" / "result.txt"
    result.parent.mkdir(parents=True)
    result.write_text("42")
    page = await ada.send(page, "/snapshots", note="with the result")
    assert page.result == "A snapshot is being taken."
    page = await settled(site, ada, "work")
    assert "with the result" in page.text
    assert "1 file, 2 bytes" in page.text
    result.unlink()

    inside = await ada.open(_browse_snapshot(page))
    inside = await ada.open(inside.link("runs/"))
    inside = await ada.open(inside.link("one/"))
    assert "result.txt" in inside.text
    assert inside.links()[-1] == "Back to the disk"
    now = await ada.open("disks/work/contents?path=runs/one")
    assert "This directory is empty." in now.text

    ask = await ada.open(page.link("Restore"))
    assert "Files that were made or changed since then are not on the disk afterwards" in ask.text
    page = await ada.send(ask, "/restore")
    assert page.result == "work is being put back."
    page = await settled(site, ada, "work")
    assert "before a restoration" in page.text
    now = await ada.open("disks/work/contents?path=runs/one")
    assert "result.txt" in now.text

    page = await ada.send(page, "/clone", name="copy")
    assert page.result == "work is being cloned to copy."
    await settled(site, ada, "copy")
    now = await ada.open("disks/copy/contents?path=runs/one")
    assert "result.txt" in now.text


def _browse_snapshot(page: Seen) -> str:
    return next(
        str(link["href"]) for link in page.soup.find_all("a") if "snapshot=" in str(link["href"])
    )


async def test_any_file_name_is_shown_and_can_be_entered(site: Site) -> None:
    ada = await site.log_in("ada")
    await ada.send(await ada.open("disks"), "/disks", name="work")
    folder = await folder_of(site, "work")
    names = [
        b"<script>alert(1)",
        b"a&b=c?d#e%2e",
        b"two\nlines",
        b"not \xff UTF-8",
        b"back\\slash",
        " right\u202eot left".encode(),
        b"'quotes\"",
    ]
    for name in names:
        (folder / os.fsdecode(name) / "inner").mkdir(parents=True)
    page = await ada.open("disks/work/contents")
    assert page.soup.find("main").find("script") is None  # type: ignore[union-attr]
    links = [
        str(link["href"]) for link in page.soup.select("table a") if "path=" in str(link["href"])
    ]
    assert len(links) == len(names)
    shown = [link.get_text() for link in page.soup.select("table a")]
    assert "<script>alert(1)/" in shown
    assert "two\\u{a}lines/" in shown
    assert " right\\u{202e}ot left/" in shown
    for link in links:
        inside = await ada.open(link)
        assert "inner/" in inside.text, link
        assert parse_qs(urlsplit(inside.link("inner/")).query)["path"][0].endswith("/inner")


async def test_a_path_never_leaves_the_disk(site: Site) -> None:
    ada = await site.log_in("ada")
    await ada.send(await ada.open("disks"), "/disks", name="work")
    folder = await folder_of(site, "work")
    (folder / "link").symlink_to("/etc")
    for path in ("../", "..%2f..", "/etc", "link", "a/../../..", "%00"):
        page = await ada.open(f"disks/work/contents?path={path}")
        assert page.status in {400, 404, 422}, path
        assert "passwd" not in page.text
        assert str(site.world.ctx.settings.data_dir) not in page.answer.text


async def test_a_disk_in_use_is_said_to_be_so(site: Site) -> None:
    mine = await site.world.reserve("ada", disk="work", create_disk=True)
    await site.world.ctx.background.settle()
    ada = await site.log_in("ada")
    page = await ada.open("disks")
    assert page.link("● in use").endswith(f"/reservations/{mine.id}")
    page = await ada.open("disks/work/delete")
    assert "End that one first." in page.text
    assert not page.has_form("/delete")
    form = {"_xsrf": ada.http.cookies.get("_xsrf", path="/services/gpudev/") or ""}
    page = await ada.post("disks/work/delete", form)
    assert page.status == 409
    assert "is in use by the reservation" in page.text


async def test_disks_of_somebody_else(site: Site) -> None:
    grace = await site.log_in("grace")
    await grace.send(await grace.open("disks"), "/disks", name="private")
    mallory = await site.log_in("mallory")
    for path in ("disks/private?user=grace", "disks/private/contents?user=grace", "disks/private"):
        assert (await mallory.open(path)).status == 404
    assert (await mallory.open("disks?user=grace")).status == 403
    admin = await site.admin()
    page = await admin.open("disks?user=grace")
    assert "Disks of grace" in page.text
    page = await admin.open(page.link("private"))
    assert page.path.endswith("disks/private?user=grace")


async def test_storage_that_refuses_says_so_in_its_own_words(site: Site) -> None:
    ada = await site.log_in("ada")
    page = await ada.open("disks")
    staging = site.world.ctx.settings.data_dir / "disks" / "staging"
    staging.rmdir()
    page = await ada.send(page, "/disks", name="work")
    assert page.status == 503
    assert "The file system of the disks refused the work." in page.text
