import { Hono } from "hono";
import { z } from "zod";

const Meeting = z.object({
  title: z.string().trim().min(1, "say what it is about"),
  people: z.coerce.number().int().min(2, "one person needs no meeting"),
  minutes: z.coerce.number().int().min(5).max(240).default(30),
});

const app = new Hono();

app.get("/", (c) =>
  c.html(`<!doctype html>
<title>What does this meeting cost?</title>
<h1>What does this meeting cost?</h1>
<form action="/cost">
  <input name="title" placeholder="Title">
  <input name="people" type="number" placeholder="People">
  <input name="minutes" type="number" value="30">
  <button>Tell me</button>
</form>`),
);

app.get("/cost", (c) => {
  const meeting = Meeting.safeParse(c.req.query());
  if (!meeting.success) return c.json(z.flattenError(meeting.error).fieldErrors, 400);
  const { title, people, minutes } = meeting.data;
  return c.json({ title, personHours: (people * minutes) / 60 });
});

export default app;
