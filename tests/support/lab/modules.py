"""Modules for the daemons of the lab, as the text of their files."""

from __future__ import annotations

__all__ = ["COUNT", "COUNT_MODULE"]

COUNT_MODULE = "Lab.Count"

#: Answers with what it was asked, after ``pause`` seconds, and how often it was asked this ``n``; a request ``seen``
#: asks for all that it was asked more than once.
COUNT = f'''\
import asyncio
from collections import Counter

from bonevalue import Module


class Count(Module):
    name = "{COUNT_MODULE}"

    async def start(self):
        self.seen = Counter()

    async def handle(self, request, context):
        if request == "repeated":
            return sorted(n for n, times in self.seen.items() if times > 1)
        self.seen[request["n"]] += 1
        await asyncio.sleep(request.get("pause", 0))
        return {{"n": request["n"], "for": context.caller.name}}
'''
