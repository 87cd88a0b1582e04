import { node } from "@elysiajs/node";
import { Elysia } from "elysia";

new Elysia({ adapter: node() }).get("/", () => "Hello from Elysia!").listen(3000);
