"""An app with a table of its own users: each row belongs to a principal, and is made at the first visit."""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from fastapi_cloudflare_access import CloudflareAccess, UserClaims

DATABASE = os.environ.get("DATABASE", "users.db")
TABLE = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    email TEXT,
    theme TEXT NOT NULL DEFAULT 'light',
    UNIQUE (issuer, subject)
)
"""
UPSERT = """
INSERT INTO users (issuer, subject, email) VALUES (?, ?, ?)
ON CONFLICT (issuer, subject) DO UPDATE SET email = excluded.email
RETURNING id, email, theme
"""

access = CloudflareAccess()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with closing(sqlite3.connect(DATABASE)) as database:
        database.execute(TABLE)
    async with access.lifespan(app):
        yield


app = FastAPI(lifespan=lifespan)


class User(NamedTuple):
    """A row of the table."""

    id: int
    email: str | None
    theme: str


class Profile(BaseModel):
    """What users may change of their row."""

    theme: str = Field(pattern="^(light|dark)$")


def connection() -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(DATABASE, check_same_thread=False)
    try:
        with database:  # commits, or rolls back after an exception
            yield database
    finally:
        database.close()


Database = Annotated[sqlite3.Connection, Depends(connection)]
CurrentClaims = Annotated[UserClaims, Depends(access.user)]


def current_user(claims: CurrentClaims, database: Database) -> User:
    row = (*claims.principal, claims.email)
    return User(*database.execute(UPSERT, row).fetchone())


CurrentUser = Annotated[User, Depends(current_user)]


@app.get("/me")
def me(user: CurrentUser) -> dict[str, str | int | None]:
    return user._asdict()


@app.put("/me")
def change(profile: Profile, user: CurrentUser, database: Database) -> None:
    database.execute("UPDATE users SET theme = ? WHERE id = ?", (profile.theme, user.id))
