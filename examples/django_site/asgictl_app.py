"""Django on WSGI, the chat with asgictl's consumers beside it: `asgictl start asgictl_app:app`."""

import json

from asgictl import Application, Group, Message, path
from mysite.wsgi import application  # first: it sets Django up, so that models can be imported

# isort: split
from board.models import Line


def join(message: Message) -> None:
    message.accept()
    message.join("chat." + message.params["room"])


def say(message: Message) -> None:
    said, room = json.loads(message.text or "{}")["message"], message.params["room"]
    Line.objects.create(room=room, text=said)
    Group("chat." + room).send(text=json.dumps({"message": said}))


app = Application(http=application, websocket=[path("/ws/chat/{room}/", connect=join, receive=say)])
