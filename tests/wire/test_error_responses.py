"""Responses of ours."""

import pytest

from asgictl.wire.error_responses import error_response


@pytest.mark.parametrize(("status", "again"), [(503, [b"1"]), (504, []), (404, [])])
def test_an_error_is_plain_text_of_its_length_and_503_says_when_to_try_again(status: int, again: list[bytes]) -> None:
    response = error_response("i/1", status, "No.", 2)
    headers = dict(response.headers)
    assert (response.status, response.body, response.more, response.attempt) == (status, b"No.\n", False, 2)
    assert headers[b"content-length"] == b"4"
    assert [value for name, value in response.headers if name == b"retry-after"] == again
