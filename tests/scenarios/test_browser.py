"""Two pages chat with each other, in headless Chromium."""

import json
import os
import signal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Machine
from tests.scenarios.test_demo import get

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


def test_a_page_sees_a_death_and_a_deploy_while_it_chats_on(browser: Browser, machine: Machine) -> None:
    machine.start("--workers", "2", "--release", "one")
    page = opened(browser, machine, "ann")
    expect(page.locator("#processes")).to_contain_text("worker-00 (release one) ready")
    killed = json.loads(get(machine.url + "/processes")[2])[0]["pid"]
    os.kill(killed, signal.SIGKILL)
    expect(page.locator("#log .death")).to_contain_text(f"(pid {killed}) died: SIGKILL")
    assert machine.run("reload", "--release", "two").returncode == 0
    expect(page.locator("#processes")).to_contain_text("(release two) ready")
    expect(page.locator("#processes")).not_to_contain_text("release one")
    expect(page.locator("#log .event").last).to_be_visible()
    page.locator("#text").fill("still here")
    page.locator("#send").click()
    expect(page.locator("#log .message").last).to_contain_text("still here")
    expect(page.locator("#log .message")).to_have_count(1)
    assert page.evaluate("tries") == 0, "it has never connected again"
    if folder := os.environ.get("ASGICTL_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/deploy.png")
    page.context.close()
