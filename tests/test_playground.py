"""The playground in a real browser (Debian's chromium), on a server in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from gainrag.selectors import PRIOR, open_selector
from gainrag.serving import server
from gainrag.serving.answering import Answerer
from gainrag.serving.app import create_app
from gainrag.serving.loaded import Shelf
from gainrag.testing import OverlapLM, OverlapRetriever, OverlapSelector
from tests.test_report_page import browser as browser  # a fixture
from tests.test_report_page import look, until
from tests.test_serving import PASSAGES, QUERY

SCREENSHOTS = Path(__file__).parent.parent / "docs" / "images"


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    with server.listen("127.0.0.1", 0) as sock:
        own = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=own.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            until(lambda: own.started)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            own.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    answerer = Answerer(OverlapRetriever(PASSAGES), OverlapLM(), depth=3)
    with listening(create_app(Shelf({"overlap": "overlap"}, lambda path: OverlapSelector()), answerer)) as found:
        yield found


@pytest.fixture(scope="module")
def shown() -> Iterator[str]:
    """A server with the selector that ships, which the pictures of the docs show."""
    answerer = Answerer(OverlapRetriever(PASSAGES), OverlapLM(), depth=3)
    with listening(create_app(Shelf({"gain-features": PRIOR}, open_selector), answerer)) as found:
        yield found


@pytest.fixture
def page(browser: Any, url: str) -> Any:
    look(browser, 1280, "light")
    browser.get("about:blank")
    open_page(browser, url)
    return browser


def open_page(browser: Any, url: str) -> None:
    browser.get(url)
    until(lambda: bool(browser.execute_script("return document.body.dataset.ready")))


def text(page: Any, id: str) -> str:
    return str(page.find_element("id", id).text)


def write(page: Any, id: str, value: str) -> None:
    page.find_element("id", id).clear()
    page.find_element("id", id).send_keys(value)


def places(page: Any, id: str) -> list[str]:
    return [item.get_attribute("data-id") for item in page.find_elements("css selector", f"#{id} .candidate")]


def done(page: Any) -> None:
    until(lambda: " candidates, ranked by " in text(page, "status"))


def test_pasted_passages_are_ranked_and_the_address_holds_the_state(page: Any, url: str) -> None:
    write(page, "question", QUERY)
    write(page, "passages", "Rain falls.\n\n# Seine\nA river that flows <b>through</b> Paris.\n\nNothing.")
    assert page.find_element("id", "send").text == "Rank the passages"
    page.find_element("id", "send").click()
    done(page)
    assert places(page, "before") == ["0", "1", "2"]
    assert places(page, "after")[0] == "1"
    assert "1., was 2., chosen" in text(page, "after")
    assert page.find_elements("css selector", "#after b") == []  # shown as it is, not as markup
    widths = page.execute_script(
        "return [...document.querySelectorAll('#after .fill')].map(f => f.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    address = page.current_url
    assert address.startswith(url + "#")
    page.get("about:blank")
    open_page(page, address)
    done(page)
    assert page.find_element("id", "question").get_attribute("value") == QUERY
    assert places(page, "after")[0] == "1"


def test_a_question_to_the_index_by_keyboard_alone(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    write(page, "answers", "Seine")
    assert page.find_element("id", "send").text == "Ask the index"
    page.find_element("id", "question").send_keys(QUERY + Keys.CONTROL + Keys.ENTER)
    done(page)
    assert text(page, "with") == "Seine"
    assert text(page, "without")
    assert len(places(page, "after")) == 4
    assert len(places(page, "before")) == 3  # the model's own passage was not retrieved
    assert "written by the model" in text(page, "after")
    assert text(page, "pseudo-text")
    assert "true gain" in text(page, "after")
    assert "retrieving: " in text(page, "timings")
    assert "The gain of no passage" in text(page, "warnings")
    # The same passage is marked in both lists when one has the focus.
    page.execute_script("document.querySelector('#after summary').focus()")
    assert len(page.find_elements("css selector", ".near")) == 2


def test_examples_and_errors(page: Any) -> None:
    page.find_element("id", "send").click()  # an empty question: the browser itself says so
    assert "candidates" not in text(page, "status")
    options = page.find_elements("css selector", "#example option")
    assert len(options) > 3
    options[1].click()
    assert page.find_element("id", "passages").get_attribute("value").count("# ") > 3
    page.find_element("id", "send").click()
    done(page)
    page.execute_script("document.getElementById('question').maxLength = 100000")
    page.execute_script("document.getElementById('passages').value = 'x '.repeat(2 << 20)")
    page.find_element("id", "send").click()
    until(lambda: "more than 2097152 bytes" in text(page, "status"))


def test_nothing_is_loaded_from_elsewhere(page: Any, url: str) -> None:
    # A refused request is one of the tests above, and the browser notes it.
    notes = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert [note for note in notes if "413" not in note] == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    urls = [one for one in urls if not one.startswith(("data:", "about:", "chrome:", "devtools:"))]
    assert urls
    assert all(one.startswith(url) for one in urls), urls


CONTRAST = """
const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('body *')].filter(e => e.offsetParent && [...e.childNodes]
  .some(n => n.nodeType === 3 && n.data.trim())).map(e => { const [a, b] = [light(getComputedStyle(e).color),
  light(ground(e))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), e.tagName + ' ' + e.textContent.slice(0, 40)]; }).filter(([ratio]) => ratio < 4.5);
"""
NAMED = """
return [...document.querySelectorAll('input, textarea, select, button, section')].filter(e => e.offsetParent &&
  !(e.labels?.length || e.textContent.trim() && e.tagName === 'BUTTON' || e.getAttribute('aria-label')
    || document.getElementById(e.getAttribute('aria-labelledby')))).map(e => e.outerHTML.slice(0, 80));
"""


LOOKS = [("desktop", 1280, "light"), ("phone", 390, "light"), ("dark", 1280, "dark")]


def test_it_can_be_read_and_named_on_every_screen(page: Any, shown: str, pytestconfig: pytest.Config) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(page, shown)
    page.find_elements("css selector", "#example option")[4].click()
    page.find_element("id", "send").click()
    done(page)
    for name, width, scheme in LOOKS:
        look(page, width, scheme)
        check_look(page, name)
        if pytestconfig.getoption("--renew-golden"):
            save(page, SCREENSHOTS / f"playground-{name}.png")
    page.find_element("id", "passages").send_keys(Keys.CONTROL + "a", Keys.DELETE)
    page.find_element("id", "send").click()
    until(lambda: text(page, "with") != "")
    for name, width, scheme in LOOKS:
        look(page, width, scheme)
        check_look(page, name)


def check_look(page: Any, name: str) -> None:
    assert page.execute_script(CONTRAST) == [], name
    assert page.execute_script(NAMED) == [], name
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth"), f"{name}: scrolls sideways"


def save(page: Any, path: Path) -> None:
    """The whole page as a picture."""
    import base64

    path.parent.mkdir(exist_ok=True)
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


def test_the_page_of_a_server_without_an_index(browser: Any, url: str) -> None:
    with listening(create_app(Shelf({"overlap": "overlap"}, lambda path: OverlapSelector()))) as plain:
        open_page(browser, plain)
        assert not browser.find_element("id", "answers").is_displayed()
        write(browser, "question", QUERY)
        browser.find_element("id", "send").click()
        until(lambda: "this server has no index" in text(browser, "status"))
