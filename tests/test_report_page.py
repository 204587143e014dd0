"""The report's page in a real browser (Debian's chromium), opened from disk: what a reader sees and does."""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gainrag.files.streams import read_json
from gainrag.report import report
from gainrag.report.page import packed
from gainrag.report.sections import sections
from tests.recorded_run import make_run

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --no-first-run "
    "--no-default-browser-check --metrics-recording-only --disable-domain-reliability"
)
# WCAG's lowest ratio for text.
READABLE = 4.5


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if lacking := [path for path in (CHROMIUM, DRIVER) if not Path(path).exists()]:
        why = f"no browser: {' and '.join(lacking)} not there (`make browser` installs them)"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, harbours: Path) -> Any:
    look(browser, 1280, "light")
    browser.get("about:blank")
    browser.get((harbours / "report.html").as_uri())
    until(lambda: status(browser).endswith("questions"))
    return browser


def look(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def until(condition: Callable[[], bool]) -> None:
    # Long enough for a machine that does much else: it is not speed that is tested.
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the page did not get there"
        time.sleep(0.02)


def choose(page: Any, name: str, value: str) -> None:
    page.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        name,
        value,
    )


def status(page: Any) -> str:
    return str(page.find_element("id", "status").text)


def outcomes(page: Any) -> dict[str, int]:
    """The numbers the outcome filter offers."""
    texts = page.execute_script("return [...document.getElementById('outcome').options].map(o => o.text)")
    return {text.split(" (")[0]: int(text.split("(")[1].rstrip(")")) for text in texts}


def expected_outcomes(data: dict[str, Any], baseline: str) -> dict[str, int]:
    found = {"wins": 0, "loses": 0, "ties": 0}
    for question in data["questions"]:
        d = question["systems"]["GainRAG"]["mean"] - question["systems"][baseline]["mean"]
        found["wins" if d > 1e-9 else "loses" if d < -1e-9 else "ties"] += 1
    return {"all": len(data["questions"]), **found}


def test_the_tables_are_those_of_report_json(page: Any, harbours: Path) -> None:
    data = read_json(harbours / "report.json")
    shown = page.execute_script(
        """return Object.fromEntries([...document.querySelectorAll("table[data-table]")].map(t => [t.dataset.table,
           [...t.rows].map(r => [...r.cells].map(c => c.textContent))]))"""
    )
    expected = {
        f"{section.key}-{number}": [[" ".join(cell.split()) for cell in row] for row in table.rows]
        for section in sections(data)
        for number, table in enumerate(section.tables)
    }
    assert {key: [[" ".join(c.split()) for c in row] for row in rows] for key, rows in shown.items()} == expected
    # And the numbers themselves, not by way of the sections: the score of each system.
    main = {row[0]: row for row in shown["result-0"][1:]}
    for system, scores in data["evaluation"]["overall"]["systems"].items():
        mean = scores["metrics"]["mean"]
        text = f"{100 * mean['value']:.1f} [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}]"
        assert main[system][4].rstrip("*") == text


def test_no_errors_no_requests_no_foreign_script(page: Any) -> None:
    page.find_element("css selector", "#list summary").click()  # the question whose texts are full of markup
    until(lambda: page.find_elements("css selector", "#list .body .candidate"))  # drawn when it opens
    assert "</script>" in page.find_element("css selector", "#list .body .candidate").text
    assert page.execute_script("return window.bitten") is None
    assert page.find_elements("css selector", "#list img, #list script") == []
    assert page.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = [m["params"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    # The browser's own start page asks for its own parts; the report asks for itself and for its empty icon.
    urls = [r["request"]["url"] for r in requests if not r["documentURL"].startswith("chrome:")]
    assert page.current_url in urls
    assert {url for url in urls if not url.startswith(("data:", "about:"))} == {page.current_url}


def test_search_narrows_the_list(page: Any) -> None:
    assert status(page) == "60 of 60 questions"
    assert len(page.find_elements("css selector", "#list .q")) == 20
    page.find_element("id", "search").send_keys("Ship 17 CALL")
    until(lambda: status(page) == "1 of 60 questions")
    assert [q.text for q in page.find_elements("css selector", "#list .text")] == ["Where did ship 17 call?"]
    assert outcomes(page)["all"] == 1


def test_pages_of_questions_follow_each_other(page: Any) -> None:
    seen = []
    for number in (1, 2, 3):
        assert page.find_element("id", "page").text == f"page {number} of 3"
        seen += [q.get_attribute("data-id") for q in page.find_elements("css selector", "#list .q")]
        if number < 3:
            page.execute_script("document.getElementById('next').click()")
    assert len(set(seen)) == 60
    assert not page.find_element("id", "next").is_enabled()


def test_wins_losses_and_ties_are_counted_and_filtered(page: Any, harbours: Path) -> None:
    data = read_json(harbours / "report.json")
    comparison = data["analyses"]["comparison"]["overall"]
    found = outcomes(page)
    assert (found["wins"], found["loses"], found["ties"]) == tuple(comparison[k] for k in ("wins", "losses", "ties"))
    assert min(found.values()) > 0
    for baseline in ("hybrid top-1", "no retrieval", "oracle"):
        choose(page, "baseline", baseline)
        expected = expected_outcomes(data, baseline)
        assert outcomes(page) == expected
        choose(page, "outcome", "loss")
        assert status(page) == f"{expected['loses']} of 60 questions"
        badges = page.find_elements("css selector", "#list .badge")
        assert all("loss" in badge.get_attribute("class") for badge in badges)
        choose(page, "outcome", "")
    choose(page, "dataset", "sea")
    assert status(page) == "30 of 60 questions"


def test_a_question_opens_with_gains_scores_and_answers(page: Any, harbours: Path) -> None:
    question = next(q for q in read_json(harbours / "report.json")["questions"] if q["id"] == "sea/5")
    page.execute_script("location.hash = 'q=' + encodeURIComponent('sea/5')")
    until(lambda: len(page.find_elements("css selector", ".q[open] .candidate")) == 7)
    candidates = page.find_elements("css selector", ".q[open] .candidate")
    ranked = sorted((p for p in question["passages"] if p["gain"] is not None), key=lambda p: -p["gain"])
    for box, passage in zip(candidates, ranked, strict=False):
        lines = box.find_element("css selector", ".bars").text.split("\n")
        assert lines == ["true gain", f"{passage['gain']:.2f}", "selector", f"{passage['scores']['GainRAG']:.2f}"]
        assert passage["text"] in box.text
    assert page.execute_script("return document.querySelector('.q[open] .bar i').style.width") == "100%"
    rows = page.find_elements("css selector", ".q[open] .body tbody tr")
    said = {row.find_element("css selector", "th").text: row.find_element("css selector", "td").text for row in rows}
    assert said == {name: one["prediction"] for name, one in question["systems"].items()}
    assert page.find_element("css selector", ".q[open] .body p").text == " | ".join(question["answers"])


def test_a_win_leads_to_its_question(page: Any, harbours: Path) -> None:
    first = read_json(harbours / "report.json")["analyses"]["comparison"]["wins"][0]
    page.execute_script("document.querySelector('table.long a').click()")
    until(lambda: page.execute_script("return document.querySelector('.q[open]')?.dataset.id") == first["id"])


CONTRAST = """
const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n.slice(0, 3), 1] : n; };
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * x + .7152 * y + .0722 * z;
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] === 1) return c;
  }
  return [255, 255, 255, 1];
};
const found = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION", "title"].includes(e.tagName) || !e.checkVisibility()) continue;
  if (e.disabled) continue;
  const style = getComputedStyle(e);
  const ink = light(parse(e instanceof SVGElement ? style.fill : style.color));
  const paper = light(behind(e));
  found.push([(Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05), e.textContent.slice(0, 40)]);
}
return [getComputedStyle(document.body).backgroundColor, found];
"""


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 23, 27)")])
def test_all_text_is_readable_in_light_and_dark(page: Any, scheme: str, paper: str) -> None:
    look(page, 1280, scheme)
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    until(lambda: len(page.find_elements("css selector", "#list .candidate")) > 100)
    background, found = page.execute_script(CONTRAST)
    assert background == paper
    assert len(found) > 500
    assert [(ratio, text) for ratio, text in found if ratio < READABLE] == []


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_never_scrolls_sideways(page: Any, width: int) -> None:
    look(page, width, "light")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    until(lambda: len(page.find_elements("css selector", "#list .candidate")) > 100)
    assert page.execute_script("return innerWidth") == width
    assert page.execute_script("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 questions of six data sets, each with 11 candidates and the answers of 20 systems."""
    variants = {f"GainRAG, trained in another way, number {n}": {"questions": 10 * n} for n in range(1, 12)}
    names = ("hotpotqa", "2wikimultihopqa", "nq", "triviaqa", "webquestions", "squad")
    folder = make_run(tmp_path_factory.mktemp("large") / "large", 24, 10, datasets=names, variants=variants)
    assert len(report(folder)["evaluation"]["overall"]["systems"]) == 20
    path = folder / "report.html"
    head, rest = path.read_text().split('id="data">')
    data, tail = rest.split("</script>", 1)
    found = json.loads(zlib.decompress(base64.b64decode(data)))
    one = found["questions"][5]
    found["questions"] = [{**one, "id": str(i), "question": f"Where did ship {i} call?"} for i in range(1200)]
    path.write_text(f'{head}id="data">{packed(found)}</script>{tail}')
    return folder


def test_a_large_report_makes_nothing_that_is_not_looked_at(browser: Any, large: Path) -> None:
    look(browser, 1280, "light")
    browser.get((large / "report.html").as_uri())
    until(lambda: status(browser) == "1200 of 1200 questions")
    assert len(browser.find_elements("css selector", "#list *")) < 200
    browser.find_element("id", "search").send_keys("ship 1199 call")
    until(lambda: status(browser) == "1 of 1200 questions")
    browser.execute_script("document.querySelector('#list details').open = true")
    until(lambda: len(browser.find_elements("css selector", "#list .candidate")) >= 11)
    assert len(browser.find_elements("css selector", "#list tbody tr")) == 20


def test_only_tables_scroll_sideways_however_many_systems(browser: Any, large: Path) -> None:
    look(browser, 375, "light")
    browser.get((large / "report.html").as_uri())
    until(lambda: status(browser) == "1200 of 1200 questions")
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    until(lambda: len(browser.find_elements("css selector", "#list .candidate")) > 100)
    assert browser.execute_script("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0
    # What stays in place leaves at least half of the width to what is scrolled.
    widths = browser.execute_script(
        """const firsts = document.querySelectorAll("table:not(.long) tbody th");
        return [...firsts].map(e => e.getBoundingClientRect().width)"""
    )
    assert max(widths) < 375 / 2


def test_a_browser_that_cannot_unpack_the_questions_says_so(browser: Any, harbours: Path) -> None:
    source = {"source": "delete window.DecompressionStream"}
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    browser.get("about:blank")
    browser.get((harbours / "report.html").as_uri())
    until(lambda: "This browser cannot unpack the questions" in status(browser))
    assert not browser.find_element("id", "filters").is_displayed()
    assert len(browser.find_elements("css selector", "table[data-table]")) > 5
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
