"""Routes about tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from splitpipe.server.app.access import ADMIN, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.security import Role

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/tokens", tags=["tokens"], dependencies=ADMIN, responses=PROBLEMS)
_LONGEST_S = 3650 * 86400.0


class NewToken(BaseModel):
    """A token that is to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", description="Whose it is."
    )
    role: Role = Field("read", description="What it allows.")
    expires_in_s: float | None = Field(
        None, gt=0, le=_LONGEST_S, description="Seconds that it is worth something; null: for ever."
    )


class KnownToken(BaseModel):
    """What is known of a token."""

    id: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class MadeToken(KnownToken):
    """A token that was made, with its text."""

    token: str = Field(description="The token itself. It is told this one time.")


@routes.get("")
def list_tokens(service: TheService) -> list[KnownToken]:
    """List all tokens, without what they are."""
    return [KnownToken(**vars(token)) for token in service.tokens.list()]


@routes.post("", status_code=201)
def create_token(service: TheService, new: NewToken) -> MadeToken:
    """Make a token."""
    token, text = service.tokens.create(new.name, role=new.role, expires_in_s=new.expires_in_s)
    return MadeToken(**vars(token), token=text)


@routes.delete("/{token}", status_code=204)
def delete_token(
    service: TheService, token: Annotated[str, Path(description="The id of the token.")]
) -> Response:
    """Make a token worthless."""
    if not service.tokens.delete(token):
        raise HTTPException(404, f"There is no token {token!r}.")
    return Response(status_code=204)
