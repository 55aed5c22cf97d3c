"""An MCP server behind Access, mounted in a FastAPI app: each tool knows its caller, and only admins may delete."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from fastmcp import FastMCP

from fastapi_cloudflare_access import CloudflareAccess, UserClaims
from fastapi_cloudflare_access.mcp import CloudflareAccessProvider, get_caller, requires
from fastapi_cloudflare_access.policies import Group

access = CloudflareAccess()
server: FastMCP[None] = FastMCP("notes", auth=CloudflareAccessProvider(access))
notes: dict[str, list[str]] = {}


@server.tool
def add_note(text: str) -> str:
    """Add a note of your own."""
    mine = notes.setdefault(get_caller().principal.subject, [])
    mine.append(text)
    return f"note {len(mine)} is added"


@server.tool
def list_notes() -> list[str]:
    """List your own notes."""
    return notes.get(get_caller().principal.subject, [])


@server.tool(auth=requires(Group("admins")))
def delete_all_notes() -> str:
    """Delete the notes of everyone."""
    notes.clear()
    return "all notes are deleted"


mcp_app = server.http_app(path="/mcp")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with access.lifespan(app), mcp_app.lifespan(mcp_app):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/notes", mcp_app)  # clients connect to /notes/mcp


@app.get("/me")
async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
    return user.email
