const express = require("express");
const cors = require("cors");
const books = require("./books");

const app = express();
app.use(cors());
app.use(express.json());

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

app.get("/", (req, res) => {
  res.type("html").send(`<!doctype html><meta charset="utf-8"><title>Bookshelf</title>
<body style="font: 17px/1.6 system-ui; max-width: 40rem; margin: 8vh auto; padding: 0 1.5rem"><h1>Bookshelf</h1>
<table cellpadding="6">${books.all().map((b) => `<tr><td>${escape(b.title)}<td>${escape(b.author)}<td>${b.year ?? ""}`).join("")}</table>
<p>As JSON: <a href="/api/books">/api/books</a>, <a href="/api/books?q=le+guin">?q=le+guin</a>`);
});

app.get("/api/books", (req, res) => {
  res.json(books.search(req.query.q));
});

app.get("/api/books/:id", (req, res) => {
  const book = books.find(Number(req.params.id));
  if (!book) return res.status(404).json({ error: "no such book" });
  res.json(book);
});

app.post("/api/books", (req, res) => {
  const { title, author, year } = req.body ?? {};
  if (typeof title !== "string" || typeof author !== "string") {
    return res.status(400).json({ error: "title and author are required" });
  }
  res.status(201).json(books.add({ title, author, year }));
});

app.delete("/api/books/:id", (req, res) => {
  if (!books.remove(Number(req.params.id))) return res.status(404).json({ error: "no such book" });
  res.status(204).end();
});

// Port 3000, whatever the environment says: as most samples on the web do.
app.listen(3000, () => console.log("Bookshelf listening on http://localhost:3000"));
