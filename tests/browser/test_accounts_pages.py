"""Signing up and in, second factors, one's own page, and roles that two people give."""

from __future__ import annotations

import re

from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions
from selenium.webdriver.support.ui import Select

from demo.people import one_time_code
from tests.browser.conftest import Browser
from tests.browser.world import World

PASSWORD = "a long enough password 1"


def sign_up(browser: Browser, name: str, email: str) -> None:
    browser.sign_out()
    browser.go("/accounts/signup/")
    browser.fill("Your name", name)
    browser.fill("Email", email)
    browser.fill("Password", PASSWORD)
    browser.fill("Password (again)", PASSWORD)
    browser.press("Sign Up")


def confirm_access(browser: Browser) -> None:
    """Type the password again where a page that changes sign-in asks for it."""
    if "/reauthenticate/" in browser.path:
        browser.fill("Password", PASSWORD)
        browser.press("Confirm")


def test_the_first_page_tells_what_this_is(portal: World, browser: Browser) -> None:
    browser.go("/")
    assert "Train on data that you never hold" in browser.text
    browser.shot("home", korean=True, dark=True)
    browser.press("한국어")
    assert "손에 쥐지 않은 데이터로 학습합니다" in browser.text


def test_a_wrong_password_says_nothing_of_the_account(portal: World, browser: Browser) -> None:
    answers = []
    for email in ("steward@example.org", "nobody@example.org"):
        browser.go("/accounts/login/")
        browser.fill("Email", email)
        browser.fill("Password", "not the password")
        browser.press("Sign In")
        answers.append(browser.find("[role=alert]").text)
    assert answers[0] == answers[1]
    browser.shot("sign-in", korean=True)


def test_somebody_signs_up_and_sets_one_time_codes_up(portal: World, browser: Browser) -> None:
    browser.go("/accounts/signup/")
    browser.shot("sign-up", korean=True)
    sign_up(browser, "Newcomer", "newcomer@example.org")
    assert "Hello, Newcomer" in browser.text
    assert "belongs to no unit yet" in browser.text
    browser.go("/accounts/2fa/totp/activate/")
    confirm_access(browser)
    browser.shot("one-time-codes", korean=True)
    secret = str(browser.labelled("Authenticator secret").get_attribute("value"))
    browser.fill("Authenticator code", one_time_code(secret))
    browser.press("Activate")
    browser.go("/accounts/2fa/recovery-codes/")
    codes = str(browser.labelled("Unused codes").get_attribute("value")).split()
    assert len(codes) == 10
    browser.shot("recovery-codes")
    browser.press("Sign out")
    browser.press("Sign in")
    browser.fill("Email", "newcomer@example.org")
    browser.fill("Password", PASSWORD)
    browser.press("Sign In")
    assert browser.path == "/accounts/2fa/authenticate/"
    browser.shot("second-factor", korean=True)
    browser.fill("Code", codes[0])
    browser.press("Sign In")
    assert "Hello, Newcomer" in browser.text


def test_a_passkey_is_made_and_signs_in_alone(portal: World, browser: Browser) -> None:
    options = VirtualAuthenticatorOptions()
    options.has_resident_key = options.has_user_verification = options.is_user_verified = True
    browser.driver.add_virtual_authenticator(options)
    try:
        sign_up(browser, "Key holder", "keys@example.org")
        browser.go("/accounts/2fa/webauthn/add/")
        confirm_access(browser)
        browser.shot("passkey")
        browser.fill("Name", "My key")
        browser.labelled("Passwordless").click()
        browser.press("Add", stays=True)
        browser.wait(lambda _: "Security key added" in browser.text)
        browser.press("Sign out")
        browser.go("/accounts/login/")
        browser.press("Sign in with a passkey", stays=True)
        browser.wait(lambda _: "Hello, Key holder" in browser.text)
    finally:
        browser.driver.remove_virtual_authenticator()


def test_a_passkey_that_the_browser_refuses_is_told_on_the_page(
    portal: World, browser: Browser
) -> None:
    options = VirtualAuthenticatorOptions()
    options.has_resident_key = options.has_user_verification = True
    browser.driver.add_virtual_authenticator(options)  # holds no key of this portal
    try:
        browser.go("/accounts/login/")
        browser.press("Sign in with a passkey", stays=True)
        browser.wait(lambda _: "The passkey was not used" in browser.text)
    finally:
        browser.driver.remove_virtual_authenticator()


def test_ones_own_page_changes_the_language_and_makes_tokens(
    portal: World, browser: Browser
) -> None:
    browser.sign_in(portal["applicant"])
    browser.go("/me/")
    browser.shot("me", korean=True)
    browser.driver.delete_cookie("django_language")
    Select(browser.labelled("Language")).select_by_value("ko")
    browser.press("Save")
    assert "정보를 저장했습니다" in browser.text
    Select(browser.labelled("언어")).select_by_value("en")
    browser.press("저장")
    browser.press("Make a token")
    browser.fill("What is it for?", "nightly run")
    browser.press("Make the token")
    assert re.search(r"gbx_[\w-]{43}", browser.find(".secret").text)
    browser.go("/me/")
    assert "gbx_" not in browser.driver.page_source
    assert "nightly run" in browser.text
    browser.press("Revoke")
    assert "The token was revoked" in browser.text


def test_a_role_takes_two_administrators(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["administrator1"])
    browser.go("/administration/roles/")
    Select(browser.labelled("Person")).select_by_visible_text("Applicant without a grant")
    Select(browser.labelled("Role")).select_by_value("committee")
    browser.press("Propose")
    assert "You proposed it; another must confirm." in browser.text
    browser.shot("roles-proposed", korean=True)
    browser.sign_in(portal["administrator2"])
    browser.go("/")
    assert "role to confirm" in browser.text
    browser.go("/administration/roles/")
    browser.press("Confirm")
    assert "The role is in force." in browser.text
    # Ended again: this person is to be nobody in the other tests.
    row = next(row for row in browser.all("tbody tr") if "without a grant" in row.text)
    row.find_element("tag name", "summary").click()
    browser.press("Yes, end it")
    assert "The role has ended." in browser.text


def test_people_and_units_are_found_and_added(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["administrator1"])
    browser.go("/administration/")
    browser.shot("people", korean=True)
    browser.fill("Name, address or unit", "statistics")
    browser.press("Search")
    assert [row.text.split("\n")[0] for row in browser.all("tbody td:first-child")] == [
        "Committee member 3"
    ]
    browser.press("Committee member 3")
    browser.shot("person")
    browser.go("/administration/organisations/")
    browser.shot("organisations", korean=True)
    browser.fill("Country", "kr")
    browser.find("#id_organisation-name").send_keys("New Company")
    browser.find("button[value=organisation]").click()
    browser.wait(lambda _: "two capital letters" in browser.text)


def test_administration_is_shut_for_others(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["steward"])
    browser.go("/administration/")
    assert "Only people with this role may do this: administrator." in browser.text
    browser.shot("refused", korean=True)
