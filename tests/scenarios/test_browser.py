"""Two pages chat with each other, in headless Chromium."""

import os

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Machine

pytestmark = pytest.mark.browser


def opened(browser: Browser, demo: Machine, name: str) -> Page:
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    page.goto(demo.url + "/#kitchen")
    page.locator("#name").fill(name)
    expect(page.locator("#status")).to_have_text("connected")
    return page


def test_two_pages_chat_and_see_who_handled_each_message(browser: Browser, demo: Machine) -> None:
    ann, bob = opened(browser, demo, "ann"), opened(browser, demo, "bob")
    for speaker, text in ((ann, "is there <b>tea</b>?"), (bob, "always"), (ann, "🙂")):
        speaker.locator("#text").fill(text)
        speaker.locator("#send").click()
        for page in (ann, bob):
            expect(page.locator("#log .message").last).to_contain_text(text)
            expect(page.locator("#log .message").last).to_contain_text("pid")
    expect(ann.locator("#log .message")).to_have_count(3)
    expect(bob.locator("body")).to_contain_text(demo.mode)
    if folder := os.environ.get("ASGICTL_SCREENSHOTS"):
        bob.screenshot(path=f"{folder}/{demo.mode}.png")
    for page in (ann, bob):
        page.context.close()
