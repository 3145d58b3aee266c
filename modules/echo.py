"""The smallest module: it answers with what it was told, and a word in front."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from bonevalue import Context, Module


class Echo(Module):
    """Says the request's text back, with a twist."""

    name = "My.Echo.Module"

    class Config(BaseModel):
        """Settings of the module, from `config:` in bonevalue.yaml."""

        twist: str = "Not "

    async def handle(self, request: Any, context: Context) -> Any:
        """Answer `{"text": "Friday"}` with `{"text": "Not Friday"}`."""
        return {"text": self.config.twist + request["text"]}
