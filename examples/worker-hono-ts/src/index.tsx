import { Hono } from "hono";
import { cors } from "hono/cors";
import { logger } from "hono/logger";
import { Page } from "./page";
import { shortcuts } from "./shortcuts";

type Bindings = { TITLE: string };

const app = new Hono<{ Bindings: Bindings }>();

app.use(logger());
app.use("/api/*", cors());

app.get("/", (c) => c.html(<Page title={c.env.TITLE} shortcuts={shortcuts.all()} />));

app.get("/api/shortcuts", (c) => c.json(shortcuts.all()));

app.post("/api/shortcuts", async (c) => {
  const { slug, url } = await c.req.json<{ slug?: string; url?: string }>();
  if (!slug || !url || !/^[a-z0-9-]+$/.test(slug) || !URL.canParse(url)) {
    return c.json({ error: "slug must be letters, digits and hyphens, url a complete address" }, 400);
  }
  return c.json(shortcuts.add(slug, url), 201);
});

app.get("/go/:slug", (c) => {
  const shortcut = shortcuts.find(c.req.param("slug"));
  return shortcut ? c.redirect(shortcut.url) : c.notFound();
});

app.onError((error, c) => {
  console.error(error);
  return c.json({ error: error.message }, 500);
});

export default app;
