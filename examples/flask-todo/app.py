import sqlite3
from pathlib import Path

from flask import Flask, g, jsonify, redirect, render_template, request, url_for

app = Flask(__name__)
DATABASE = Path(__file__).parent / "todo.db"

SCHEMA = """
CREATE TABLE IF NOT EXISTS todo (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    done INTEGER NOT NULL DEFAULT 0
)
"""


def get_db():
    if "db" not in g:
        g.db = sqlite3.connect(DATABASE)
        g.db.row_factory = sqlite3.Row
    return g.db


@app.teardown_appcontext
def close_db(_error):
    db = g.pop("db", None)
    if db is not None:
        db.close()


with app.app_context():
    get_db().execute(SCHEMA)
    get_db().commit()


@app.get("/")
def index():
    todos = get_db().execute("SELECT * FROM todo ORDER BY done, id").fetchall()
    return render_template("index.html", todos=todos)


@app.post("/add")
def add():
    title = request.form.get("title", "").strip()
    if title:
        get_db().execute("INSERT INTO todo (title) VALUES (?)", (title,))
        get_db().commit()
    return redirect(url_for("index"))


@app.post("/toggle/<int:todo_id>")
def toggle(todo_id):
    get_db().execute("UPDATE todo SET done = 1 - done WHERE id = ?", (todo_id,))
    get_db().commit()
    return redirect(url_for("index"))


@app.get("/api/todos")
def api_todos():
    todos = get_db().execute("SELECT * FROM todo ORDER BY id").fetchall()
    return jsonify([{"id": t["id"], "title": t["title"], "done": bool(t["done"])} for t in todos])


if __name__ == "__main__":
    # The port is fixed and only this machine can reach it: how most tutorials leave it.
    app.run(host="127.0.0.1", port=5000, debug=False)
