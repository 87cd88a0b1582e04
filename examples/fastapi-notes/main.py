"""Notes that appear in every open browser at once, by server-sent events."""

import asyncio
import json
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI(title="Notes")


class NoteIn(BaseModel):
    text: str = Field(min_length=1, max_length=500)


class Note(NoteIn):
    id: int
    created_at: datetime


notes: dict[int, Note] = {}
ids = count(1)
listeners: set[asyncio.Queue[Note]] = set()


@app.get("/", include_in_schema=False)
def index() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))


@app.get("/notes")
def list_notes() -> list[Note]:
    return list(notes.values())


@app.post("/notes", status_code=201)
async def add_note(note: NoteIn) -> Note:
    saved = Note(id=next(ids), text=note.text, created_at=datetime.now(UTC))
    notes[saved.id] = saved
    for queue in listeners:
        queue.put_nowait(saved)
    return saved


@app.delete("/notes/{note_id}", status_code=204)
async def delete_note(note_id: int) -> None:
    if notes.pop(note_id, None) is None:
        raise HTTPException(404, "no such note")


@app.get("/events")
async def events() -> StreamingResponse:
    queue: asyncio.Queue[Note] = asyncio.Queue()

    async def stream():
        listeners.add(queue)
        try:
            yield f"event: hello\ndata: {json.dumps({'notes': len(notes)})}\n\n"
            while True:
                try:
                    note = await asyncio.wait_for(queue.get(), timeout=15)
                    yield f"id: {note.id}\nevent: note\ndata: {note.model_dump_json()}\n\n"
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            listeners.discard(queue)

    return StreamingResponse(stream(), media_type="text/event-stream")
