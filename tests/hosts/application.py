"""Numbered messages, and sockets whose disconnects are told to those who listen."""

from asgictl import Application, Group, Message, path
from benchmarks import applications
from benchmarks.numbered import accept, count


def join(message: Message) -> None:
    message.state["name"] = message.query_string.decode()
    message.accept()
    if message.query_string == b"listen":
        message.join("leavers")


def leave(message: Message) -> None:
    Group("leavers").send(text=f"{message.state['name']} left with {message.code}")


app = Application(
    http=applications.wsgi,
    websocket=[path("/numbers", connect=accept, receive=count), path("/named", connect=join, disconnect=leave)],
)
