"""What a screen reader, a keyboard and weak eyes need, on every kind of page, in both languages."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Browser
from tests.browser.world import World

PAGES = {
    "": "/ /datasets/ /datasets/mammography/ /accounts/login/ /accounts/signup/ /keys/ "
    "/accounts/password/reset/ /audit/checkpoints/ /no/such/page/",
    "applicant": "/ /me/ /accounts/2fa/ /accounts/password/change/",
    "steward": "/steward/ /steward/new/ /steward/mammography/ /steward/mammography/1/ "
    "/steward/mammography/1/report/ /administration/",
    "officer": "/ /examinations/ /examinations/mammography/1/ /examinations/mammography/1/1/",
    "auditor": "/audit/",
    "administrator1": "/administration/ /administration/people/1/ /administration/roles/ "
    "/administration/organisations/",
}


@pytest.mark.parametrize("who", PAGES)
def test_pages_can_be_read_and_used_by_everybody(
    who: str, published: World, browser: Browser
) -> None:
    if who:
        browser.sign_in(published[who])
    found = {}
    for path in PAGES[who].split():
        for language in ("en", "ko"):
            browser.go(path)
            browser.language(language)
            for width, height in ((1280, 900), (390, 844)):
                browser.size(width, height)
                for dark in (False, True):
                    browser.dark(dark)
                    faults = browser.faults(width)
                    if faults:
                        found[path, language, width, dark] = faults
    browser.dark(False)
    browser.driver.delete_cookie("django_language")
    assert not found, found


def test_the_first_stop_of_the_keyboard_skips_the_menu(portal: World, browser: Browser) -> None:
    browser.go("/datasets/")
    browser.find("body").send_keys("\ue004")  # Tab
    assert browser.driver.switch_to.active_element.get_attribute("class") == "skip"
    browser.driver.switch_to.active_element.send_keys("\ue007")  # Enter
    assert browser.driver.switch_to.active_element.get_attribute("id") == "content"
