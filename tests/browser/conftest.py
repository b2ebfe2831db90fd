"""Chromium, headless, against a whole portal: signing in through the real page, and pictures.

Pictures are written to docs/pictures when GLOVEBOX_PICTURES is set (``make docs``), and otherwise
to a temporary folder: a test run leaves the working tree as it was.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

from demo.people import Person, one_time_code
from tests.browser.world import World, world

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
LOADED = "return document.readyState === 'complete'"
ACCESSIBILITY = (Path(__file__).parent / "accessibility.js").read_text()
DESKTOP, PHONE = (1280, 900), (390, 844)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives Chromium."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A portal with everybody in it, and no dataset yet."""
    if not (shutil.which("chromedriver") and shutil.which("bwrap")):
        pytest.skip("needs chromedriver and bubblewrap")
    with world(tmp_path_factory.mktemp("portal")) as made:
        yield made


@pytest.fixture(scope="session")
def published(portal: World) -> World:
    """The same portal with a published dataset, ``mammography``."""
    portal.offer()
    portal.publish()
    return portal


class Browser:
    """One window: go somewhere, find things by what people read, take pictures."""

    def __init__(self, driver: webdriver.Chrome, url: str, pictures: Path) -> None:
        self.driver = driver
        self.url = url
        self.pictures = pictures
        self.signed_in: dict[str, list[dict[str, Any]]] = {}
        self.size(*DESKTOP)

    # -- going -------------------------------------------------------------------------------

    def go(self, path: str) -> None:
        """Open a page of the portal."""
        self.driver.get(self.url + path)

    @property
    def path(self) -> str:
        """Where the window is, without the portal's address."""
        return self.driver.current_url.removeprefix(self.url)

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.find("body").text

    def find(self, selector: str) -> WebElement:
        """Return the first element that fits a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that fit a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def has(self, selector: str) -> bool:
        """Whether something fits a CSS selector."""
        return bool(self.all(selector))

    def wait(self, until: Callable[[webdriver.Chrome], Any], *, seconds: float = 30) -> Any:
        """Wait until something is true of the window; return it."""
        replaced = (StaleElementReferenceException,)  # the page changes while it is looked at

        def patiently(window: webdriver.Chrome) -> Any:
            try:
                return until(window)
            except WebDriverException as error:
                # The driver's other word for a page that is being replaced at this very moment.
                if "does not belong to the document" in str(error.msg):
                    return False
                raise

        return WebDriverWait(self.driver, seconds, 0.2, replaced).until(patiently)

    def labelled(self, label: str) -> WebElement:
        """Return the input of a label: as a screen reader finds it."""
        for element in self.all("label"):
            if element.text.strip().startswith(label) and element.get_attribute("for"):
                return self.driver.find_element(By.ID, str(element.get_attribute("for")))
        raise AssertionError(f"no label {label!r} on {self.path}")

    def fill(self, label: str, value: str) -> None:
        """Type into the input of a label."""
        field = self.labelled(label)
        field.clear()
        field.send_keys(value)

    def press(self, words: str, *, stays: bool = False) -> None:
        """Press the button or follow the link that says so, and wait for the page that follows.

        With ``stays`` a script on the page does the work, and no page is waited for.
        """
        element = self.wait(lambda _: self._saying(words))
        submits = element.get_attribute("type") == "submit"
        leads_on = not stays and (submits or element.get_attribute("href"))
        here = self.find("html")
        element.click()
        if leads_on:
            self.wait(staleness_of(here), seconds=60)
            self.wait(lambda window: window.execute_script(LOADED), seconds=60)

    def _saying(self, words: str) -> WebElement | None:
        """Return what says exactly these words, or begins with them; None while there is none."""
        begins = None
        with contextlib.suppress(StaleElementReferenceException):  # the page is being replaced
            for element in self.all("main button, main a, header button, header a, summary"):
                said = element.text.strip()
                if said.startswith(words) and element.is_displayed():
                    if said == words:
                        return element
                    begins = begins or element
        return begins

    # -- signing in --------------------------------------------------------------------------

    def sign_in(self, person: Person) -> None:
        """Sign in through the real page with a one-time code; the second time by the cookie."""
        self.sign_out()
        # Their own language would follow the sign-in; tests read English unless they ask.
        self.driver.add_cookie({"name": "django_language", "value": "en", "path": "/"})
        if person.key in self.signed_in:
            for cookie in self.signed_in[person.key]:
                self.driver.add_cookie(cookie)
            return
        for _attempt in range(3):
            self.go("/accounts/login/")
            self.fill("Email", person.email)
            self.fill("Password", person.password)
            self.press("Sign In")
            if person.totp_secret:
                self.fill("Code", one_time_code(person.totp_secret))
                self.press("Sign In")
            if "Sign out" in self.text:
                break
            # A code counts once: whoever used theirs a moment ago waits for the next.
            time.sleep(30 - time.time() % 30 + 0.5)
            self.sign_out()
        assert "Sign out" in self.text, self.text
        self.signed_in[person.key] = self.driver.get_cookies()

    def sign_out(self) -> None:
        """Forget who is signed in; the session on the server stays for the next time."""
        if not self.driver.current_url.startswith(self.url):
            self.go("/health/")
        self.driver.delete_all_cookies()

    def language(self, code: str) -> None:
        """Read the pages in English or Korean from now on."""
        self.driver.add_cookie({"name": "django_language", "value": code, "path": "/"})
        self.driver.refresh()

    # -- looking -----------------------------------------------------------------------------

    def size(self, width: int, height: int) -> None:
        """Look through a window of this size, in CSS pixels."""
        facts = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", facts)

    def dark(self, yes: bool) -> None:
        """Prefer dark colours, or not."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if yes else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def shot(
        self, name: str, *, korean: bool = False, phone: bool = True, dark: bool = False
    ) -> None:
        """Keep pictures of the page: NAME.png at 1280x900, NAME-phone.png at 390x844.

        With ``korean`` also NAME-ko.png and NAME-ko-phone.png, with ``dark`` also NAME-dark.png.
        """
        self._both(name, phone)
        if dark:
            self.dark(True)
            self._keep(f"{name}-dark")
            self.dark(False)
        if korean:
            self.language("ko")
            self._both(f"{name}-ko", phone)
            self.language("en")

    def _both(self, name: str, phone: bool) -> None:
        self._keep(name)
        if phone:
            self.size(*PHONE)
            self._keep(f"{name}-phone")
            self.size(*DESKTOP)

    def _keep(self, name: str) -> None:
        self.driver.execute_script("document.activeElement?.blur()")
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as image:
            few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(self.pictures / f"{name}.png", optimize=True)

    def faults(self, width: int = DESKTOP[0]) -> list[str]:
        """Return what would hinder a screen reader, a keyboard or weak eyes on this page."""
        found: list[str] = self.driver.execute_script(ACCESSIBILITY, width)
        return found

    def complaints(self) -> list[str]:
        """Return what Chromium's console complains of: scripts that failed, what CSP stopped.

        That an answer was a refusal (4xx) is noted there as well, and no complaint.
        """
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "with a status of 4" not in entry["message"]
        ]


@pytest.fixture(scope="session")
def chromium(portal: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for the whole run."""
    options = Options()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    binary = shutil.which("chromium")
    if binary:
        options.binary_location = binary
    pictures = PICTURES if os.environ.get("GLOVEBOX_PICTURES") else tmp_path_factory.mktemp("shots")
    pictures.mkdir(parents=True, exist_ok=True)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    try:
        yield Browser(driver, portal.url, pictures)
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A window where nobody is signed in; a page that complains fails its test."""
    chromium.sign_out()
    chromium.size(*DESKTOP)
    chromium.complaints()
    yield chromium
    complaints = chromium.complaints()
    assert not complaints, complaints


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add to a failure where the window was and what could be read there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    window = getattr(item, "funcargs", {}).get("browser")
    if report.when == "call" and report.failed and isinstance(window, Browser):
        report.sections.append(("the page", f"{window.path}\n{window.text[:3000]}"))
