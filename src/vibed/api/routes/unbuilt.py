"""Routes of the contract that nothing stands behind yet: refused by name, absent from OpenAPI."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from vibed.api.errors import NotSupported

router = APIRouter(include_in_schema=False)

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
UNBUILT = {
    "/v1/apps/{app_id}/suspend": "suspend",
    "/v1/apps/{app_id}/resume": "resume",
    "/v1/apps/{app_id}/share-links": "share-links",
    "/v1/apps/{app_id}/share-links/{rest:path}": "share-links",
    "/v1/audit": "audit",
    "/v1/users": "users",
    "/v1/users/{rest:path}": "users",
    "/v1/quotas": "quotas",
    "/v1/quotas/{rest:path}": "quotas",
}


def _refuse(path: str, name: str) -> None:
    async def refuse(request: Request) -> Response:
        raise NotSupported(f"{name} cannot be used yet", details={"field": name})

    router.add_api_route(path, refuse, methods=METHODS, name=f"unbuilt {path}", response_model=None)


for unbuilt, what in UNBUILT.items():
    _refuse(unbuilt, what)
