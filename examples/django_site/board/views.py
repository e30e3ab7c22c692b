import ctypes
import time
from collections.abc import Iterator

from django.contrib.auth.decorators import login_required
from django.db.models import Count, QuerySet
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render

from .models import Note

SHOWN = 20
NoteForm = modelform_factory(Note, fields=["title", "file"])


@login_required
def notes(request: HttpRequest) -> HttpResponse:
    """Shows the notes, and adds one, with a file."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    form = NoteForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        form.instance.author = request.user
        form.save()
        return redirect("notes")
    return render(request, "board/notes.html", {"form": form, "notes": newest()})


def latest(request: HttpRequest) -> HttpResponse:
    """Shows the notes to anybody."""
    return render(request, "board/latest.html", {"notes": newest()})


def report(request: HttpRequest) -> HttpResponse:
    """Counts the notes of each author, and takes ?ms= as a database does that has many."""
    authors = list(Note.objects.values("author__username").annotate(count=Count("id")).order_by("author__username"))
    time.sleep(int(request.GET.get("ms", 0)) / 1000)
    return JsonResponse({"authors": authors})


def hold(request: HttpRequest) -> HttpResponse:
    """Holds the interpreter for ?ms=, as a C extension does that keeps the GIL."""
    ctypes.PyDLL(None).poll(None, 0, int(request.GET.get("ms", 0)))
    return HttpResponse("held", content_type="text/plain")


def newest() -> QuerySet[Note]:
    return Note.objects.select_related("author").order_by("-id")[:SHOWN]


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
