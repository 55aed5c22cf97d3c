"""The app of the example for a fleet with a stream, as `scripts/containers` runs it."""

import asyncio
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

example: Any = import_module("fleet_app")
app: FastAPI = example.app
access = example.access


async def ticks(caller: Any) -> AsyncGenerator[str]:
    """Yield events until the token ends."""
    async with access.while_valid(caller):
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.2)


@app.get("/ticks")
async def get_ticks(caller: Annotated[Any, Depends(access)]) -> StreamingResponse:
    """Stream events that never end."""
    return StreamingResponse(ticks(caller), media_type="text/event-stream")
