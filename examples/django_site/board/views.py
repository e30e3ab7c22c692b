import time
from collections.abc import Iterator

from django.contrib.auth.decorators import login_required
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render

from .models import Note

NoteForm = modelform_factory(Note, fields=["title", "file"])


@login_required
def notes(request: HttpRequest) -> HttpResponse:
    """Shows the notes, and adds one, with a file."""
    form = NoteForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        form.instance.author = request.user
        form.save()
        return redirect("notes")
    request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "board/notes.html", {"form": form, "notes": Note.objects.order_by("-id")})


def follow(request: HttpRequest) -> StreamingHttpResponse:
    """The titles after note ?after=, ?count= of them, each as soon as it is there; the end after half a minute.

    On WSGI each leaves at once. On ASGI Django collects a sync iterator before it sends anything.
    """
    deadline = time.monotonic() + 30
    after, count = int(request.GET.get("after", 0)), int(request.GET.get("count", 1))

    def lines() -> Iterator[str]:
        found, last = 0, after
        while found < count and time.monotonic() < deadline:
            for note in Note.objects.filter(id__gt=last).order_by("id")[: count - found]:
                found, last = found + 1, note.id
                yield f"{note.title}\n"
            time.sleep(0.1)

    return StreamingHttpResponse(lines(), content_type="text/plain")


def room(request: HttpRequest, room: str) -> HttpResponse:
    return render(request, "board/room.html", {"room": room})
