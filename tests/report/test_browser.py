"""The page in a real browser, from a file, without a network: it sorts, filters, enlarges, tells, and is accessible."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.types import Draw
from bench import store
from bench.compare import standings, telling
from bench.compare.changes import compare
from bench.peers.many_records import write_many
from bench.record import Record
from bench.report import write_report
from bench.report.document import html
from tests.report.conftest import write_results

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[browser]'")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = os.environ.get("TRILEMMA_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason=f"needs a Chromium of the system, one of {', '.join(NAMES)}")

EVIL = "<script>window.hurt=1</script>\"'&<img src=x onerror=window.hurt=1>"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=FOUND, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(written: Path) -> Path:
    return written / "index.html"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """open_page(path, **options of the context): the page; at the end nothing was asked for and no error was told."""
    contexts, errors, asked = [], [], []

    def opening(path: Path, width: int = 1300, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(offline=True, viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda shown: errors.append(shown.message))
        page.on("request", lambda request: asked.append(request.url))
        page.emulate_media(reduced_motion="reduce", color_scheme=options.get("color_scheme"))
        page.goto(path.as_uri())
        return page

    yield opening
    for context in contexts:
        context.close()
    assert errors == []
    assert asked, "the premise: requests are seen"
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def column(page: Any, table: str, index: int) -> list[str]:
    """What the visible rows of a table's body show in a column."""
    return page.locator(f"#{table} tbody.body tr:visible").evaluate_all(
        "(rows, index) => rows.map(row => row.cells[index].dataset.sort || '')", index
    )


def test_a_column_sorts_by_click_and_by_key_and_rows_keep_all_they_told(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    rows = "#digits-main tbody.body tr"
    before = sorted(page.locator(rows).evaluate_all("rows => rows.map(row => row.innerHTML)"))
    head = page.locator("#digits-main thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text) for text in column(page, "digits-main", 1) if text]
    assert len(values) > 5
    assert values == sorted(values)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, "digits-main", 1) if text] == sorted(values, reverse=True)
    assert page.locator("#digits-main [aria-sort]").count() == 1
    assert (
        "sorted by FD, descending"
        in page.locator("#digits-main")
        .locator("xpath=ancestor::div[@class='scroll']/preceding-sibling::p[@role='status'][1]")
        .inner_text()
    )
    after = sorted(page.locator(rows).evaluate_all("rows => rows.map(row => row.innerHTML)"))
    assert after == before, "intervals, marks and flags stay with their rows"
    assert page.locator("#digits-main tbody.floor").inner_text().startswith("Real images")


def test_tables_filter_by_text_family_sampler_and_steps(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    box = page.get_by_role("group", name="Filter All numbers").first
    status = box.locator("xpath=following-sibling::p[1]")
    assert status.get_attribute("role") == "status"
    box.get_by_label("show every draw").check()
    whole = page.locator("#digits-main tbody.body tr:visible").count()
    assert whole > 15
    assert status.inner_text() == f"{whole} rows"
    box.get_by_label("family").select_option("Diffusion")
    box.get_by_label("sampler").select_option("DDIM")
    box.get_by_label("steps").select_option("10")
    names = page.locator("#digits-main tbody.body tr:visible th").all_inner_texts()
    assert len(names) == 2
    assert all("S=10 " in name for name in names)
    assert status.inner_text() == f"2 of {whole} rows"
    box.get_by_label("find").fill("ETA 1")
    assert page.locator("#digits-main tbody.body tr:visible").count() == 1
    box.get_by_label("show every draw").uncheck()
    assert page.locator("#digits-main tbody.body tr:visible").count() == 1, "what is asked for is looked for in all"
    box.get_by_label("find").fill("no such thing")
    assert page.locator("#digits-main tbody.body tr:visible").count() == 0
    assert page.locator("#digits-main tbody.floor tr:visible").count() == 1, "the floor stays to compare with"


def test_a_grid_enlarges_by_key_and_escape_gives_the_focus_back(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    button = page.get_by_role("button", name="Enlarge: VAE, seed 0", exact=True)
    small = button.locator("svg").bounding_box()
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    large = dialog.locator("svg").bounding_box()
    assert large["width"] >= 1.5 * small["width"]
    assert "VAE" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("element => element === document.activeElement")
    page.locator("figure .enlarge:has(img)").first.click()
    assert dialog.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_marks_and_triangles_tell_their_numbers_to_pointer_and_keyboard(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    tip = page.locator("#tip")
    row = page.locator("#digits-main tbody.body tr", has=page.locator("th", has_text="VAE")).first
    value, interval = row.locator("td").first.inner_text().split("\n")[:2]
    page.locator(".spots a[aria-label^='VAE:']").first.hover()
    assert tip.is_visible()
    assert f"FD {value} ({interval})" in tip.inner_text()
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    page.locator(".triangle", has_text="VAE").first.locator("svg").hover()
    assert f"FD {value} ({interval})" in tip.inner_text()
    page.mouse.move(5, 5)
    page.locator(".triangle h3 a", has_text="DCGAN").focus()
    assert tip.is_visible()
    assert tip.inner_text().startswith("DCGAN")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def over(page: Any, mark: Any) -> None:
    """The pointer on a mark's middle, whichever other mark lies over it."""
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def figure_over_steps(page: Any) -> Any:
    return page.locator("figure", has=page.get_by_role("img", name="Quality over steps", exact=True)).first


def test_points_over_steps_tell_to_pointer_and_by_arrow_keys_from_one_stop_of_tab(
    page_file: Path, open_page: Open
) -> None:
    page = open_page(page_file)
    tip, marks = page.locator("#tip"), figure_over_steps(page).locator(".spots a")
    assert marks.count() == 11
    row = page.locator("#digits-main tbody.body tr", has=page.locator("th", has_text="S=20 eta 0")).first
    value, interval = row.locator("td").first.evaluate(
        "cell => [cell.firstChild.textContent, cell.lastChild.textContent]"
    )
    point = figure_over_steps(page).locator(".spots a[aria-label*='S=20 eta 0']")
    over(page, point)
    assert f"FD {value} ({interval})" in tip.inner_text()
    assert "20 network calls an image" in tip.inner_text()
    page.mouse.move(5, 5)
    assert not tip.is_visible()
    assert marks.evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1
    button = figure_over_steps(page).get_by_role("button", name="Enlarge")
    button.focus()
    page.keyboard.press("Tab")
    told = []
    for key in ("Home", "ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowRight"):
        page.keyboard.press(key)
        assert tip.is_visible(), "also where the page had to scroll"
        told.append(tip.inner_text())
        assert marks.evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1
    assert told[0] == told[1] or told[1] != told[2] != told[3]
    assert told[1] == told[3]
    assert told[4] == told[5], "the last has none behind it"
    page.keyboard.press("Tab")
    assert not figure_over_steps(page).locator(".spots a:focus").count()


def test_marks_of_an_enlarged_figure_tell_as_well_and_lead_out_of_it(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=500)
    figure_over_steps(page).get_by_role("button", name="Enlarge").click()
    dialog = page.get_by_role("dialog")
    point = dialog.locator(".spots a[aria-label*='S=20 eta 0']")
    image, place = dialog.locator("img").bounding_box(), point.bounding_box()
    small = figure_over_steps(page).locator("img").bounding_box()
    before = figure_over_steps(page).locator(".spots a[aria-label*='S=20 eta 0']").bounding_box()
    middle = [(p["x"] + p["width"] / 2 - i["x"]) / i["width"] for p, i in ((place, image), (before, small))]
    assert middle[0] == pytest.approx(middle[1], abs=0.01), "over the same point of the picture"
    over(page, point)
    tip = page.locator("#tip")
    assert tip.is_visible()
    at = tip.bounding_box()
    top = page.evaluate(
        "([x, y]) => document.elementsFromPoint(x, y)[0].closest('dialog') !== null", [at["x"], at["y"]]
    )
    assert top
    page.mouse.down()
    page.mouse.up()
    assert not dialog.is_visible()
    assert "-model-" in page.url


def test_of_marks_that_lie_over_each_other_the_nearest_tells_and_is_followed(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    figure = figure_over_steps(page)
    figure.scroll_into_view_if_needed()
    middles = figure.locator(".spots a").evaluate_all(
        "all => all.map(a => { const b = a.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )
    gaps = [min(math.dist(a, b) for b in middles if b is not a) for a in middles]
    assert 0.5 < min(gaps) < 9, "the premise: two marks cover each other"
    for number in sorted(range(len(middles)), key=lambda i: gaps[i])[:2]:
        page.mouse.move(5, 5)
        page.mouse.move(*middles[number])
        told = figure.locator(".spots a").nth(number).get_attribute("data-tip")
        assert page.locator("#tip b").inner_text() == told.split("\n")[0]


def test_a_first_tap_tells_and_a_second_leads_on(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=390, height=800, has_touch=True, is_mobile=True)
    point = figure_over_steps(page).locator(".spots a[aria-label*='S=20 eta 0']")
    point.scroll_into_view_if_needed()
    point.tap()
    assert page.locator("#tip").is_visible()
    assert "#" not in page.url
    point.tap()
    assert "-model-" in page.url


def test_a_name_in_a_table_leads_to_the_block_of_its_model(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file)
    link = page.locator("#digits-main tbody.body th a", has_text="DCGAN")
    link.focus()
    page.keyboard.press("Enter")
    block = page.locator(link.get_attribute("href"))
    assert block.evaluate("element => element.open")
    told = block.inner_text()
    assert "Radford et al. 2015" in told
    assert "implicit" in told
    assert "lr=0.002" in told
    assert block.locator("polyline").count() == 1
    assert block.locator("svg.pixels use").count() == 1
    box = block.locator("svg.pixels").bounding_box()
    shot = page.screenshot(clip=box)
    assert len(shot) > 1500, "the samples are drawn once more, not an empty frame"


def test_without_scripts_the_page_is_whole(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, java_script_enabled=False)
    rows = page.locator("#digits-main tr")
    assert rows.count() > 15, "the premise: there are draws that scripts hide at first"
    assert page.locator("#digits-main tr:visible").count() == rows.count()
    assert page.locator(".controls").count() == 0
    assert page.locator("label.toggle:visible").count() == 0


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"width": 390, "height": 800}])
def test_axe_finds_no_serious_violation(page_file: Path, open_page: Open, look: dict[str, Any]) -> None:
    page = open_page(page_file, **look)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20, "the premise: it looked"
    grave = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert grave == []


def test_on_a_phone_nothing_is_wider_than_the_screen(page_file: Path, open_page: Open) -> None:
    page = open_page(page_file, width=390, height=800)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.body.scrollWidth") <= 390


def test_markup_in_any_text_of_a_record_is_never_run(tmp_path: Path, open_page: Open) -> None:
    def evil(record: Record) -> Record:
        draw = record.cell.draw and Draw("ddim", 5, options={"x": EVIL})
        cell = replace(record.cell, model=EVIL, dataset=EVIL, config={EVIL: EVIL}, draw=draw)
        measured = tuple(replace(m, note=EVIL, protocol={**m.protocol, EVIL: EVIL}) for m in record.measured)
        changed = replace(record, cell=cell, measured=measured, skipped={EVIL: EVIL}, provenance={EVIL: EVIL})
        return replace(changed, status="failed", error=EVIL) if record.cell.seed else changed

    folder = write_results(tmp_path / "evil", models=("vae", "real"), change=evil, families=False)
    info = store.read_run(folder)
    told = {EVIL: {"title": EVIL, "source": EVIL, "family": EVIL}}
    store.write_run(folder, {**info, "title": EVIL, "matrix": EVIL, "families": told})
    page = open_page(write_report(folder, tmp_path / "out"), width=390)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    for mark in page.locator("[data-tip]").all()[:4]:
        mark.dispatch_event("pointerover")
        assert page.locator("#tip img, #tip script").count() == 0
        assert "<script>" in page.locator("#tip").inner_text()
    page.locator(".enlarge").first.dispatch_event("click")
    assert page.get_by_role("dialog").is_visible()
    assert page.locator("script").count() == 1
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_long_table_is_paged_and_sorting_takes_all_its_rows(tmp_path: Path, open_page: Open) -> None:
    page_file = write_report(write_many(tmp_path / "many", 1300, samples=False), tmp_path / "out")
    page = open_page(page_file)
    rows = page.locator("#digits-main tbody.body tr")
    assert rows.count() > 200
    assert page.locator("#digits-main tbody.body tr:visible").count() == 200
    box = page.get_by_role("group", name="Filter All numbers").first
    box.get_by_role("button", name="next").click()
    rest = page.locator("#digits-main tbody.body tr:visible").count()
    assert rest == rows.count() - 200
    assert box.get_by_role("button", name="next").is_disabled()
    page.locator("#digits-main thead button").nth(1).click()
    first = float(column(page, "digits-main", 1)[0])
    keys = rows.evaluate_all("rows => rows.map(row => Number(row.cells[1].dataset.sort))")
    assert first == min(keys)
    assert "page 1 of 2" in box.locator("xpath=following-sibling::p[1]").inner_text()
    assert "Figures, pictures and the blocks of models show" in page.locator(".thinned").inner_text()


@pytest.fixture(scope="module")
def other_pages(results: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A comparison and a leaderboard of two runs, one of an evil name."""

    def slower(record: Record) -> Record:
        return replace(record, measured=tuple(replace(m, value=0.9 * m.value) for m in record.measured))

    folder = tmp_path_factory.mktemp("other")
    both = [results, write_results(folder / EVIL.replace("/", ""), change=slower)]
    documents = telling.document(compare(both)), standings.document(standings.rank(both))
    files = [folder / f"{i}.html" for i in range(len(documents))]
    for file, document in zip(files, documents, strict=True):
        file.write_text(html(document), encoding="utf-8")
    return files


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"width": 390, "height": 800}])
def test_comparison_and_leaderboard_are_pages_of_the_same_kind(
    other_pages: list[Path], open_page: Open, look: dict[str, Any]
) -> None:
    for file in other_pages:
        page = open_page(file, **look)
        told = axe.Axe().run(page).response
        assert len(told["passes"]) > 15, "the premise: it looked"
        grave = [(v["id"], v["nodes"][0]["html"]) for v in told["violations"] if v["impact"] in ("serious", "critical")]
        assert grave == []
        assert page.evaluate("window.hurt") is None
        assert page.evaluate("document.documentElement.scrollWidth") == look.get("width", 1300)
        first = page.locator("table").first
        rows = first.locator("tbody.body tr:visible").count()
        box = page.get_by_label("show every line").first
        if box.count():
            box.check()
            assert first.locator("tbody.body tr:visible").count() > rows
        first.locator("thead button").nth(1).click()
        assert first.locator("thead th").nth(1).get_attribute("aria-sort") == "ascending"
