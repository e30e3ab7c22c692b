from django.conf import settings
from django.db import models


class Note(models.Model):
    title = models.CharField(max_length=100)
    file = models.FileField(upload_to="notes/", blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    def __str__(self) -> str:
        return str(self.title)


class Line(models.Model):
    """What somebody said in a room."""

    room = models.CharField(max_length=50)
    text = models.TextField()

    def __str__(self) -> str:
        return str(self.text)
