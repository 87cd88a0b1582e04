#!/usr/bin/env bash
# FastAPI 0.165.0: where GET and DELETE of one path are two functions, a 405 names the methods of the first alone: `Allow: GET`,
# against RFC 9110 15.5.6, which wants all that the resource supports. And since routers are included as a whole, `app.routes`
# has no longer the routes from which the rest could be told. For vibeD: api/app.py asks the routers themselves.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3 -m venv v && v/bin/pip install --quiet fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1
cat > finding.py <<'PYTHON'
import asyncio
import sys

import fastapi
import httpx

router = fastapi.APIRouter()


@router.get("/app")
def read():
    return {}


@router.delete("/app")
def remove():
    return {}


app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(router)


async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        return await client.put("/app")


answer = asyncio.run(ask())
listed = [getattr(route, "path", None) for route in app.routes]
print(f"fastapi {fastapi.__version__}: {answer.status_code}, Allow: {answer.headers.get('allow')}; paths of app.routes: {listed}")
sys.exit(0 if answer.headers.get("allow") == "GET" and "/app" not in listed else 1)
PYTHON
v/bin/python finding.py
