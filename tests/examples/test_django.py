"""examples/django_site in both modes: on ASGI with Channels, on WSGI with asgictl's consumers, and its admin."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.conftest import MODES, Machine, new_machine
from tests.examples.conftest import EXAMPLES, Visitor
from tests.scenarios.test_demo import SECONDS

DIRECTORY = EXAMPLES / "django_site"
WSGI, CHANNELS, MIXED = "mysite.wsgi:application", "mysite.asgi:application", "asgictl_app:app"
SUPERUSER = ["createsuperuser", "--noinput", "--username=ann", "--email=ann@example.com"]


@contextmanager
def running(mode: str, target: str, data: Path) -> Iterator[Machine]:
    """Run the project on a database of its own, in which ann may do everything."""
    with new_machine() as made:
        made.directory, made.mode = DIRECTORY, mode
        made.environment |= {"DJANGO_SITE_DATA": str(data), "DJANGO_SUPERUSER_PASSWORD": "secret"}
        for command in (["migrate"], SUPERUSER):
            subprocess.run(
                [sys.executable, "manage.py", *command, "-v0"], cwd=DIRECTORY, env=made.environment, check=True
            )
        workers = "1" if target == CHANNELS else "2"  # its rooms are a process's
        made.start(target, "--mode", mode, "--workers", workers)
        yield made


@pytest.fixture(scope="module", params=[(mode, target) for mode in MODES for target in (CHANNELS, MIXED)], ids="-".join)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, str]]:
    mode, target = request.param
    with running(mode, target, tmp_path_factory.mktemp("data")) as made:
        yield made, target


@pytest.fixture
def site(variant: tuple[Machine, str]) -> Machine:
    return variant[0]


@pytest.fixture
def ann(site: Machine) -> Visitor:
    """A visitor who is logged in."""
    visitor = Visitor(site.url)
    token = visitor.token("/")  # which leads to the login page
    visitor.post("/accounts/login/", username="ann", password="secret", csrfmiddlewaretoken=token)
    return visitor


def last_note(visitor: Visitor) -> int:
    """Add a note; returns its number."""
    visitor.post("/", title="before", csrfmiddlewaretoken=visitor.token("/"))
    numbers = re.findall(r"/board/note/(\d+)/change", visitor.get("/admin/board/note/"))
    return max(map(int, numbers))


def test_only_who_logged_in_sees_the_notes(site: Machine, ann: Visitor) -> None:
    assert "<p>ann, visit" in ann.get("/")
    stranger = Visitor(site.url)
    assert "<title>Log in</title>" in stranger.get("/")
    token = stranger.token("/accounts/login/")
    page = stranger.post("/accounts/login/", username="ann", password="wrong", csrfmiddlewaretoken=token)
    assert "enter a correct username and password" in page


def test_the_session_counts_whichever_process_answers(ann: Visitor) -> None:
    for number in range(2, 20):  # logging in was the first
        assert f"ann, visit {number}<" in ann.get("/")


def test_a_form_without_its_token_is_refused_and_writes_nothing(ann: Visitor) -> None:
    assert ann.refused("/", b"title=forged") == 403
    assert "forged" not in ann.get("/")


@pytest.mark.parametrize("size", [1, 3_000_000])  # in memory, and in Django's temporary file
def test_an_upload_is_stored_and_comes_back(ann: Visitor, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    page = ann.upload("/", f"{size}.bin", content, title=f"{size} bytes", csrfmiddlewaretoken=ann.token("/"))
    found = re.search(rf'{size} bytes <a href="(/media/notes/{size}\w*.bin)">', page)
    assert found
    with ann.open(found[1]) as response:
        assert response.headers["Content-Length"] == str(size)
        assert response.read() == content


def test_a_line_arrives_before_the_next_note_exists(variant: tuple[Machine, str], ann: Visitor) -> None:
    if variant[1] == CHANNELS:
        pytest.skip("on ASGI Django collects a sync iterator before it sends anything")
    last = last_note(ann)
    with ann.open(f"/follow/?after={last - 1}&count=6") as stream:  # headers leave with the first line (PEP 3333)
        assert stream.readline() == b"before\n"
        for number in range(5):
            ann.post("/", title=f"note {number}", csrfmiddlewaretoken=ann.token("/"))
            assert stream.readline().decode() == f"note {number}\n"
        assert stream.read() == b""


def test_a_streaming_response_arrives_whole(ann: Visitor) -> None:
    after = last_note(ann)
    for number in range(5):
        ann.post("/", title=f"note {number}", csrfmiddlewaretoken=ann.token("/"))
    assert ann.get(f"/follow/?after={after}&count=5").splitlines() == [f"note {number}" for number in range(5)]


def enter(site: Machine, room: str) -> ClientConnection:
    return connect(f"{site.ws}/ws/chat/{room}/", origin=Origin(site.url))


def test_the_chat_reaches_the_room_in_order_and_nobody_else(site: Machine) -> None:
    with ExitStack() as stack:
        kitchen = [stack.enter_context(enter(site, "kitchen")) for _ in range(4)]
        garden = stack.enter_context(enter(site, "garden"))
        for number in range(50):
            kitchen[0].send(json.dumps({"message": f"{number} 🙂"}))
        for member in kitchen:
            heard = [json.loads(member.recv(SECONDS))["message"] for _ in range(50)]
            assert heard == [f"{number} 🙂" for number in range(50)]
        garden.send(json.dumps({"message": "alone"}))
        assert json.loads(garden.recv(SECONDS)) == {"message": "alone"}


def test_who_left_a_room_does_not_keep_it_from_working(site: Machine) -> None:
    with enter(site, "hall") as one:
        with enter(site, "hall"):
            pass
        one.send(json.dumps({"message": "still here"}))
        assert json.loads(one.recv(SECONDS)) == {"message": "still here"}


def test_a_message_that_the_chat_cannot_read_closes_that_socket_alone(site: Machine) -> None:
    with enter(site, "hall") as one, enter(site, "hall") as other:
        other.send("no JSON")
        with pytest.raises(ConnectionClosed):
            other.recv(SECONDS)
        assert other.close_code == 1011
        one.send(json.dumps({"message": "still here"}))
        assert json.loads(one.recv(SECONDS)) == {"message": "still here"}


def test_channels_refuses_a_socket_that_another_site_opens(variant: tuple[Machine, str]) -> None:
    if variant[1] != CHANNELS:
        pytest.skip("it is Channels' AllowedHostsOriginValidator that refuses")
    with pytest.raises(InvalidStatus, match="403"):
        connect(variant[0].ws + "/ws/chat/hall/", origin=Origin("http://elsewhere.example"))


@pytest.mark.browser
@pytest.mark.parametrize("mode", MODES)
def test_in_the_admin_one_logs_in_adds_uploads_and_deletes(browser: Browser, tmp_path: Path, mode: str) -> None:
    with running(mode, WSGI, tmp_path) as site, browser.new_context() as context:
        page = context.new_page()
        page.goto(site.url + "/admin/")
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Notes", exact=True).click()

        page.get_by_role("link", name="Add note").last.click()
        page.get_by_label("Title").fill("Tea & <b>cake</b>")
        page.get_by_label("File").set_input_files({"name": "tea.txt", "mimeType": "text/plain", "buffer": b"Earl Grey"})
        page.get_by_label("Author").select_option("ann")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator(".success")).to_contain_text("was added successfully")

        page.get_by_role("link", name="Tea & <b>cake</b>").first.click()
        page.get_by_role("link", name="notes/tea.txt").click()
        expect(page.locator("body")).to_have_text("Earl Grey")
        page.go_back()
        page.get_by_role("link", name="Delete", exact=True).click()
        page.get_by_role("button", name="Yes, I’m sure").click()
        expect(page.locator(".success")).to_contain_text("was deleted successfully")
        expect(page.locator(".paginator")).to_contain_text("0 notes")
