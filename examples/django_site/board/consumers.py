"""The chat as Channels' tutorial has it, at the end of its third part; what is said is saved."""

import json
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from .models import Line


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.group = f"chat_{self.room}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        said = json.loads(text_data or "{}")["message"]
        await Line.objects.acreate(room=self.room, text=said)
        await self.channel_layer.group_send(self.group, {"type": "chat.message", "message": said})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps({"message": event["message"]}))
