"""The trail, its chain, checkpoints and keys."""

from __future__ import annotations

from tests.browser.conftest import Browser
from tests.browser.world import World


def test_an_auditor_filters_the_trail_and_walks_the_chain(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["auditor"])
    browser.go("/audit/")
    browser.shot("audit", korean=True, dark=True)
    browser.fill("What (or how it begins)", "role.")
    browser.press("Filter")
    actions = {cell.text for cell in browser.all(".trail td:nth-child(4)")}
    assert actions == {"role.first", "role.proposed", "role.confirmed"} | (actions & {"role.ended"})
    browser.press("Show all")
    # Looking was written down as well, with what was looked for.
    assert "audit.viewed" in browser.text
    browser.press("Walk the chain now")
    browser.wait(lambda _window: "It holds" in browser.text)
    browser.shot("audit-chain", korean=True)


def test_keys_and_checkpoints_are_for_everybody(portal: World, browser: Browser) -> None:
    browser.go("/keys/")
    assert browser.text.count("BEGIN PUBLIC KEY") == 2
    browser.shot("keys", korean=True)
    browser.go("/audit/checkpoints/")
    browser.shot("checkpoints")


def test_the_trail_is_shut_for_others(portal: World, browser: Browser) -> None:
    browser.sign_in(portal["administrator1"])
    browser.go("/audit/")
    assert "Only people with this role may do this: auditor." in browser.text
