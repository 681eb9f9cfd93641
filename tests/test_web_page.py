"""The page in a real browser, headless: Chromium, where one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.render.preview import class_colour, object_colour

from .web_daemon import HEIGHT, SQUARES, WIDTH, WebDaemon, eventually

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")

WAIT_MS = 90_000  # beside much else on two cores
VIEW = '.view[data-id="wide/frame"]'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as starter:
        browser = starter.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[WebDaemon]:
    daemon = WebDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def page(browser: Any, daemon: WebDaemon) -> Iterator[Any]:
    """The page once its views are there; nothing may be complained about until the end."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    complaints: list[str] = []
    page = opened(context, daemon.url, complaints)
    yield page
    context.close()
    assert complaints == []


def opened(context: Any, url: str, complaints: list[str]) -> Any:
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    page.goto(url)
    page.wait_for_selector(f"{VIEW} .when:not(:empty)")
    return page


def pixels(page: Any, selector: str) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA of a canvas."""
    width, height, data = page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector);
            const { width, height } = canvas;
            const image = canvas.getContext("2d").getImageData(0, 0, width, height);
            return [width, height, Array.from(image.data)];
        }""",
        selector,
    )
    return np.array(data, np.uint8).reshape(height, width, 4)


def rgb(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def spot(page: Any, x: float, y: float, view: str = VIEW) -> tuple[float, float]:
    """Where on the screen a pixel of the picture is, by what CSS has made of the stage."""
    box = page.locator(f"{view} .stage").bounding_box()
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left = box["x"] + (box["width"] - WIDTH * scale) / 2
    top = box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + x * scale, top + y * scale


def test_overlay_is_the_label_map_to_the_last_pixel(page: Any, daemon: WebDaemon) -> None:
    page.locator(f"{VIEW} .layers button", has_text="grey").click()  # the objects' layer
    page.wait_for_function(
        """(selector) => document.querySelector(selector).getContext("2d")
            .getImageData(25, 5, 1, 1).data[3] === 255""",
        arg=f"{VIEW} .mask",
    )
    shown = pixels(page, f"{VIEW} .mask")
    colours = np.array([[*rgb(class_colour(label)), 255] for label in range(256)], np.uint8)
    colours[255] = 0  # unknown: nothing is drawn
    np.testing.assert_array_equal(shown, colours[daemon.labels])
    picture = pixels(page, f"{VIEW} .picture")
    x0, y0, _, _ = SQUARES[200]
    assert abs(int(picture[y0 + 5, x0 + 5, 0]) - 200) < 8


def test_events_are_drawn_by_polarity(page: Any) -> None:
    page.wait_for_selector('.view[data-id="dvs/events"] .when:not(:empty)')
    shown = pixels(page, '.view[data-id="dvs/events"] .picture').astype(int)
    assert shown.shape == (4, 6, 4)
    brighter, darker = shown[0, 1], shown[3, 2]
    assert brighter[0] > brighter[2] + 50
    assert darker[2] > darker[0] + 50
    assert len(np.unique(shown.reshape(-1, 4), axis=0)) == 3


def points(daemon: WebDaemon) -> list[tuple[list[float], float]]:
    return [
        (prompt.points[0].tolist(), float(prompt.labels[0]))
        for prompt in daemon.prompts
        if len(prompt.points)
    ]


@pytest.mark.parametrize(
    ("large", "height_px"),
    [(False, 900), (True, 900), (True, 480)],
    ids=["scaled", "bars above and below", "bars at the sides"],
)
def test_a_click_arrives_in_image_pixels(
    page: Any, daemon: WebDaemon, large: bool, height_px: int
) -> None:
    page.set_viewport_size({"width": 1300, "height": height_px})
    if large:
        page.keyboard.press("1")
        page.wait_for_selector("#views.alone")
        box = page.locator(f"{VIEW} .stage").bounding_box()
        assert (box["width"] / box["height"] > WIDTH / HEIGHT + 0.1) == (height_px == 480)
    before = len(points(daemon))
    page.mouse.click(*spot(page, 10.5, 9.5))
    assert eventually(lambda: len(points(daemon)) > before)
    place, label = points(daemon)[-1]
    assert place == pytest.approx([10.5, 9.5], abs=0.15)
    assert label == 1.0
    page.wait_for_selector("#objects-list .choose[aria-pressed=true]")
    page.mouse.click(*spot(page, 50.5, 30.5), button="right")
    assert eventually(lambda: len(points(daemon)) > before + 1)
    place, label = points(daemon)[-1]
    assert place == pytest.approx([50.5, 30.5], abs=0.15)
    assert label == 0.0
    page.keyboard.press("x")
    page.wait_for_selector("#objects-list li.quiet")


def test_a_click_beside_the_picture_says_nothing(page: Any, daemon: WebDaemon) -> None:
    page.keyboard.press("1")
    page.wait_for_selector("#views.alone")
    box = page.locator(f"{VIEW} .stage").bounding_box()
    before = len(daemon.prompts)
    bars = (box["x"] + 3, box["y"] + box["height"] / 2), (box["x"] + box["width"] / 2, box["y"] + 3)
    for place in bars:
        x, y = page_pixel(page, place)
        if not (0 <= x <= WIDTH and 0 <= y <= HEIGHT):
            page.mouse.click(*place)
    page.mouse.click(*spot(page, 10, 9))
    assert eventually(lambda: len(daemon.prompts) == before + 1)


def page_pixel(page: Any, place: tuple[float, float]) -> tuple[float, float]:
    (x0, y0), (x1, _) = spot(page, 0, 0), spot(page, 1, 0)
    return (place[0] - x0) / (x1 - x0), (place[1] - y0) / (x1 - x0)


def test_a_drag_is_a_box_whose_mask_appears(page: Any, daemon: WebDaemon) -> None:
    page.locator(f"{VIEW} .layers button", has_text="segmenter").click()  # label map off
    x0, y0, x1, y1 = SQUARES[150]
    page.mouse.move(*spot(page, x0, y0))
    page.mouse.down()
    page.mouse.move(*spot(page, x1, y1), steps=5)
    page.mouse.up()
    page.wait_for_selector("#objects-list .choose[aria-pressed=true]")
    box = daemon.prompts[-1].box
    assert box is not None
    np.testing.assert_allclose(box, SQUARES[150], atol=0.2)
    page.wait_for_function(
        """([selector, x, y]) => document.querySelector(selector).getContext("2d")
            .getImageData(x, y, 1, 1).data[3] === 255""",
        arg=[f"{VIEW} .mask", x0 + 2, y0 + 2],
    )
    shown = pixels(page, f"{VIEW} .mask")
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    expected[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(shown[..., 3] == 255, expected)
    (instance,) = daemon.video.objects
    assert shown[y0, x0, :3].tolist() == rgb(object_colour(instance))
    page.locator("#object-reset").click()
    assert eventually(lambda: daemon.video.objects == ())


def test_a_refused_prompt_is_said_with_its_hint(page: Any, daemon: WebDaemon) -> None:
    page.keyboard.press("b")
    page.mouse.click(*spot(page, 10, 9))
    page.wait_for_selector("#toasts .toast", state="attached")
    assert "Select an object first" in page.locator("#toasts").inner_text()


def test_keys_choose_views_freeze_and_hide(page: Any, daemon: WebDaemon) -> None:
    views = page.locator(".view")
    count = views.count()
    assert count == 2
    page.keyboard.press("2")
    page.wait_for_function("() => document.querySelectorAll('.view:not([hidden])').length === 1")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('.view:not([hidden])').length === 2")
    page.keyboard.press("o")
    assert page.locator(f"{VIEW} .mask").evaluate("e => getComputedStyle(e).visibility") == "hidden"
    page.keyboard.press("o")
    page.keyboard.press("]")
    assert page.locator("#opacity").input_value() == "60"
    assert page.locator(f"{VIEW} .mask").evaluate("e => getComputedStyle(e).opacity") == "0.6"
    page.keyboard.press(" ")
    assert page.locator("#pause").get_attribute("aria-pressed") == "true"
    assert eventually(lambda: all(not each.looks_at for each in daemon.sink._clients))
    page.keyboard.press(" ")
    assert eventually(lambda: any(each.looks_at for each in daemon.sink._clients))
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys:not([open])", state="attached")
    daemon.control.orders.clear()
    page.keyboard.press("r")
    page.wait_for_selector("#record[aria-pressed=true]")
    assert "3.1 MB" in page.locator("#record").inner_text()
    page.keyboard.press("r")
    page.wait_for_selector("#record[aria-pressed=false]")
    assert daemon.control.orders == ["start", "stop"]


def test_everything_has_a_name_and_can_be_reached_by_keys(page: Any) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [role=img]")].filter((each) =>
            !(each.textContent.trim() || each.getAttribute("aria-label") || each.labels?.length))
            .map((each) => each.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"opacity", "pause", "record", "help", "view"} <= {
        word for each in reached for word in each.split()
    }
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_figures_models_and_errors_with_hints_are_shown(page: Any, daemon: WebDaemon) -> None:
    card = page.locator(".pipeline")
    assert "seg" in card.inner_text()
    assert "c0ffee00" in card.inner_text()
    assert "4.00 ms" in card.inner_text()
    chart = pixels(page, ".chart")
    assert len(np.unique(chart.reshape(-1, 4), axis=0)) > 3
    daemon.control.errors, daemon.control.hint = ("dvs: unplugged",), "plug it in again"
    try:
        page.wait_for_selector("#messages li")
        assert page.locator("#messages li").inner_text().split("\n") == [
            "dvs: unplugged",
            "plug it in again",
        ]
        assert page.locator("#state").inner_text() == "degraded"
    finally:
        daemon.control.errors = ()
    page.wait_for_selector("#messages", state="hidden")


def test_a_slow_tab_drops_and_says_how_many(page: Any, daemon: WebDaemon) -> None:
    page.evaluate("() => { const t = performance.now(); while (performance.now() - t < 1500); }")
    page.wait_for_function(
        "() => / [1-9][0-9,]* dropped/.test(document.getElementById('flow').textContent)"
    )
    seq = daemon.seq
    assert eventually(lambda: daemon.seq > seq + 10)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_scrolls_in_one_direction_only(
    browser: Any, daemon: WebDaemon, scheme: str, tmp_path: Path
) -> None:
    for width in (360, 390):
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=True
        )
        page = opened(context, daemon.url, [])
        page.wait_for_selector(".pipeline")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        overflow = page.evaluate(
            """() => [...document.querySelectorAll("body *")]
                .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
                .map((each) => each.outerHTML)"""
        )
        assert overflow == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
        context.close()


def test_a_page_of_another_site_gets_nothing(browser: Any, daemon: WebDaemon) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route("http://evil.example/", lambda route: route.fulfill(body="<p>evil"))
    page.goto("http://evil.example/")
    port = daemon.url.rpartition(":")[2]
    opened_it = page.evaluate(
        """(port) => new Promise((give) => {
            const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
            socket.onopen = () => give(true);
            socket.onerror = () => give(false);
        })""",
        port,
    )
    assert not opened_it
    context.close()


def test_the_page_asks_for_a_token_and_opens_with_it(browser: Any, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text("read reader-0123456789\n")
    daemon = WebDaemon(tokens=str(tokens))
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(daemon.url)
        page.wait_for_selector("#login[open]")
        page.locator("#token").fill("not this one")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.getElementById('login-error').textContent !== ''")
        page.locator("#token").fill("reader-0123456789")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{VIEW} .when:not(:empty)")
        assert page.locator("#record").is_hidden()
        assert page.locator("#objects").is_hidden()
    finally:
        context.close()
        daemon.stop()


def test_the_page_comes_back_when_the_daemon_does(browser: Any) -> None:
    daemon = WebDaemon()
    port = daemon.url.rpartition(":")[2]
    context = browser.new_context()
    try:
        page = opened(context, daemon.url, [])
        daemon.stop()
        page.wait_for_selector("body.offline")
        daemon = WebDaemon(listen=f"127.0.0.1:{port}")
        page.wait_for_selector("body:not(.offline)")
        page.wait_for_selector(f"{VIEW} .when:not(:empty)")
    finally:
        context.close()
        daemon.stop()
