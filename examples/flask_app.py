"""Flask: a form, a session in a cookie, an upload, and a response that streams."""

import hashlib
import os
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from flask import Flask, Response, redirect, render_template_string, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

PAGE = """<!doctype html>
<html lang="en">
<title>Flask</title>
<p>Hello, {{ session.get("name", "stranger") }}!</p>
<form method="post" action="{{ url_for('greet') }}">
  <input name="name" aria-label="Your name" required> <button>That is me</button>
</form>
<form method="post" action="{{ url_for('upload') }}" enctype="multipart/form-data">
  <input type="file" name="file" aria-label="A file" required> <button>Upload</button>
</form>
"""

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "for trying it out")


@app.get("/")
def index() -> str:
    return render_template_string(PAGE)


@app.post("/")
def greet() -> AnyResponse:
    session["name"] = request.form["name"]
    return redirect(url_for("index"))


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    digest = hashlib.sha256()
    while data := file.read(64 << 10):
        digest.update(data)
    return {"name": file.filename, "sha256": digest.hexdigest()}


@app.get("/ticks")
def ticks() -> Response:
    """A line each half second until the client leaves; in split mode that takes one thread of a worker."""

    def lines() -> Iterator[str]:
        for number in count(1):
            yield f"{number}\n"
            time.sleep(0.5)

    return Response(lines(), content_type="text/plain")
