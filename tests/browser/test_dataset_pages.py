"""A dataset from the steward's form to the catalogue, over the officer's examination."""

from __future__ import annotations

import json
import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tests.browser.conftest import DESKTOP, PHONE, Browser
from tests.browser.world import World


def test_a_steward_offers_a_dataset_and_uploads_originals(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["steward"])
    browser.go("/steward/new/")
    browser.fill("Title", "Uploaded phantoms")
    browser.fill("Korean title", "올린 팬텀")
    browser.fill("Short name", "uploaded")
    browser.fill("Description", "Four views of <b>nobody</b>.")
    Select(browser.labelled("Kind")).select_by_value("mammography")
    browser.fill("Policy", "[access]\nmaximum_days = 9999")
    browser.press("Create the dataset")
    assert "access.maximum_days" in browser.find("#id_policy_error").text
    browser.shot("dataset-new", korean=True)
    browser.fill("Policy", "[access]\nmaximum_days = 30")
    browser.press("Create the dataset")
    browser.press("Open the next version")
    assert browser.path == "/steward/uploaded/1/"
    browser.shot("originals", korean=True)
    browser.find("#file").send_keys(str(portal.zip_of(patients=1)))
    browser.press("Upload", stays=True)
    browser.wait(lambda _: "Received:" in browser.text)
    browser.press("Start de-identification")
    browser.shot("ingesting")
    # The page moves by itself, without being loaded again by us.
    browser.wait(lambda _: "waiting for the security officer" in browser.text, seconds=180)
    browser.shot("version", korean=True)
    browser.press("The report")
    assert len(browser.all("tbody tr")) > 4
    browser.shot("report", korean=True)
    Select(browser.labelled("Status")).select_by_value("quarantined")
    browser.press("Filter")
    assert browser.path.endswith("status=quarantined&reason=")
    browser.go("/steward/")
    browser.shot("steward", korean=True)
    browser.go("/datasets/uploaded/")
    assert "Access lasts 30 days at most." in browser.text
    assert "<b>nobody</b>" in browser.text


def test_what_is_no_zip_is_refused_with_a_sentence(portal: World, browser: Browser) -> None:
    steward = portal["steward"]
    words = {"slug": "refused", "kind": "photos", "title": "x", "description": "x"}
    steward.portal.post("datasets", **words)
    steward.portal.post("datasets/refused/versions")
    text = portal.folder / "not.zip"
    text.write_text("no zip")
    browser.sign_in(steward)
    browser.go("/steward/refused/1/")
    browser.find("#file").send_keys(str(text))
    browser.press("Upload", stays=True)
    browser.wait(lambda _: "Send the originals as one zip file." in browser.text)


def test_an_officer_examines_by_keyboard_and_mouse(portal: World, browser: Browser) -> None:
    def pictures() -> list[WebElement]:
        return browser.all(".examined img")

    portal.offer("examined", patients=1)
    browser.sign_in(portal["officer"])
    browser.go("/")
    browser.shot("home-officer", korean=True)
    browser.go("/examinations/")
    browser.shot("examinations", korean=True)
    browser.press("examined v1")
    browser.press("Draw the sample")
    browser.wait(lambda _: "examines the sample" in browser.text, seconds=120)
    browser.press("Begin")
    browser.wait(lambda _: all(picture.get_property("naturalWidth") for picture in pictures()))
    browser.shot("examination-item", korean=True, dark=True)

    browser.size(*PHONE)
    assert browser.faults(PHONE[0]) == []
    browser.size(*DESKTOP)

    # The keys are listed; a box is made, moved and made larger by keyboard alone, and removed.
    body = browser.find("body")
    body.send_keys("?")
    assert browser.find("#help").get_attribute("open") is not None
    browser.shot("examination-keys")
    ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    assert browser.find("#help").get_attribute("open") is None
    browser.find("body").send_keys("b")
    at = [float(str(field.get_attribute("value"))) for field in browser.all(".boxes input")]
    keyboard = ActionChains(browser.driver)
    keyboard.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    keyboard.key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT)
    keyboard.key_down(Keys.CONTROL).send_keys(Keys.ARROW_LEFT).key_up(Keys.CONTROL).perform()
    moved = [float(str(field.get_attribute("value"))) for field in browser.all(".boxes input")]
    assert moved == [at[0] - 9, at[1] + 2, at[2] + 1, at[3]]
    ActionChains(browser.driver).send_keys(Keys.DELETE).perform()
    assert not browser.has(".sheet .drawn rect")

    # Larger, to full size and back; both pictures show the same place.
    wide = [picture.size["width"] for picture in pictures()]
    browser.find("body").send_keys("++")
    assert all(p.size["width"] > w for p, w in zip(pictures(), wide, strict=True))
    left, right = browser.all(".stage")
    browser.driver.execute_script("arguments[0].scrollTop = 40", left)
    browser.wait(lambda _: right.get_property("scrollTop") == left.get_property("scrollTop") > 0)
    browser.shot("examination-larger", phone=False)
    browser.find("body").send_keys("--")

    # What the header said before stands beside what it says now, and not in the API's report.
    assert "PatientName" in browser.find(".differences").text

    # A box is drawn with the mouse, taken out again, typed, and counts as missed.
    browser.driver.execute_script("scrollTo(0, 0)")
    sheet = browser.all(".sheet")[1]
    drag = ActionChains(browser.driver).move_to_element_with_offset(sheet, -40, -30)
    drag.click_and_hold().move_by_offset(60, 40).release().perform()
    numbers = [float(str(field.get_attribute("value"))) for field in browser.all(".boxes input")]
    assert len(numbers) == 4
    assert min(numbers) > 0
    assert len(browser.all(".sheet .drawn rect")) == 2
    browser.shot("examination-box", phone=False)
    browser.press("Remove", stays=True)
    assert not browser.has(".sheet .drawn rect")
    typed = browser.find("[name=box_x]")
    typed.send_keys("10c")  # while typing, keys type: nothing is decided
    time.sleep(1)  # a page that was being left would be gone by now
    assert typed.get_property("value") == "10"
    typed.clear()

    browser.find("body").send_keys("m")
    browser.wait(lambda _: "Draw a box around what was missed" in browser.text)
    browser.find("body").send_keys("n")
    browser.wait(lambda _: browser.path.endswith("/2/"))
    browser.find("body").send_keys("p")
    browser.wait(lambda _: browser.path.endswith("/1/"))
    # A masked box is ticked as wrong by keyboard, and by a click into the picture.
    while not browser.has("[name=wrong]"):
        browser.find("body").send_keys("n")
        time.sleep(0.5)
    browser.wait(lambda _: all(picture.get_property("naturalWidth") for picture in pictures()))
    browser.find("body").send_keys("k")
    ActionChains(browser.driver).send_keys(Keys.SPACE).perform()
    box = browser.find("[name=wrong]")
    assert box.get_property("checked")
    browser.wait(lambda _: browser.has(".masked.wrong"))  # drawn a moment after the tick
    assert browser.driver.execute_script("return scrollY") == 0  # the picture stays in view
    browser.shot("examination-wrong", phone=False)
    # A click means the smallest box under it.
    rects = browser.find(".overlay").find_elements("css selector", "rect.masked")
    small = min(rects, key=lambda rect: rect.size["width"] * rect.size["height"])
    tick = f"[name=wrong][data-place='{small.get_attribute('data-place')}']"
    was = browser.find(tick).get_property("checked")
    ActionChains(browser.driver).move_to_element(small).click().perform()
    assert browser.find(tick).get_property("checked") != was
    for box in browser.all("[name=wrong]:checked"):
        box.click()
    browser.find("body").send_keys("w")
    browser.wait(lambda _: "Choose the masked boxes that hide nothing" in browser.text)
    browser.go("/examinations/examined/1/next/")
    for _file in range(4):
        here = browser.path
        browser.find("body").send_keys("c")
        browser.wait(lambda _, here=here: browser.path != here)
    assert browser.path == "/examinations/examined/1/"
    assert "every picture was looked at" in browser.text
    browser.shot("examination-sign", korean=True)
    browser.fill("Your statement", "Examined as drawn.")
    browser.press("Sign and publish")
    assert "The version is published" in browser.text
    browser.shot("examination-signed")


def test_keys_can_be_turned_off(published: World, browser: Browser) -> None:
    portal = published
    portal.offer("silent", patients=1)
    portal["officer"].portal.post("datasets/silent/versions/1/examination")
    browser.sign_in(portal["officer"])
    browser.go("/examinations/silent/1/1/")
    browser.find("#keys").click()
    browser.find("body").send_keys("n")
    assert browser.path == "/examinations/silent/1/1/"
    browser.find("#keys").send_keys(Keys.SPACE)
    browser.find("body").send_keys("n")
    browser.wait(lambda _: browser.path == "/examinations/silent/1/2/")


def test_nobody_but_an_officer_sees_originals(published: World, browser: Browser) -> None:
    browser.sign_in(published["steward"])
    browser.go("/examinations/mammography/1/1/")
    assert "Only a security officer may examine" in browser.text


def test_anybody_reads_the_catalogue_and_takes_the_sample(
    published: World, browser: Browser
) -> None:
    browser.go("/datasets/")
    browser.shot("catalogue", korean=True, dark=True)
    browser.press("Mammography phantoms")
    assert browser.path == "/datasets/mammography/"
    assert "found nothing that identifies anybody" in browser.text
    browser.shot("dataset", korean=True, dark=True)
    embedded = browser.find("script[type='application/ld+json']").get_attribute("textContent")
    document = json.loads(str(embedded))
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    status = "return (await fetch(arguments[0])).status"
    for path in ("sample.zip", "croissant.json"):
        assert browser.driver.execute_script(status, f"/datasets/mammography/{path}") == 200


def test_an_unknown_page_says_so(portal: World, browser: Browser) -> None:
    browser.go("/datasets/no-such-dataset/")
    assert "There is no such page" in browser.text
    browser.shot("not-found", korean=True)
