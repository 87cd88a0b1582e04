import os
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

HERE = Path(__file__).parent


class Room:
    def __init__(self):
        self.members = {}
        self.history = []

    async def say(self, message):
        self.history = [*self.history[-49:], message]
        for member in list(self.members):
            try:
                await member.send_json(message)
            except RuntimeError:
                self.members.pop(member, None)


room = Room()


async def chat(socket: WebSocket):
    await socket.accept()
    name = socket.query_params.get("name", "someone")[:30]
    for message in room.history:
        await socket.send_json(message)
    room.members[socket] = name
    await room.say({"from": "room", "text": f"{name} came in"})
    try:
        while True:
            text = (await socket.receive_text())[:1000]
            await room.say({"from": name, "text": text})
    except WebSocketDisconnect:
        pass
    finally:
        room.members.pop(socket, None)
        await room.say({"from": "room", "text": f"{name} left"})


async def index(request):
    return FileResponse(HERE / "static" / "index.html")


async def who(request):
    return JSONResponse(sorted(room.members.values()))


app = Starlette(
    routes=[
        Route("/", index),
        Route("/who", who),
        WebSocketRoute("/ws", chat),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.getenv("PORT", "8000")))
