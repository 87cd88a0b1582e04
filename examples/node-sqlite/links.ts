import { DatabaseSync } from "node:sqlite";

export interface Link {
  id: number;
  url: string;
  note: string;
  at: string;
}

export class LinkBox {
  readonly #database: DatabaseSync;

  constructor(file: string) {
    this.#database = new DatabaseSync(file);
    this.#database.exec(`CREATE TABLE IF NOT EXISTS links (
      id INTEGER PRIMARY KEY,
      url TEXT NOT NULL,
      note TEXT NOT NULL,
      at TEXT NOT NULL DEFAULT (datetime('now'))
    )`);
  }

  all(): Link[] {
    return this.#database.prepare("SELECT id, url, note, at FROM links ORDER BY id DESC").all() as unknown as Link[];
  }

  keep(url: string, note: string): void {
    this.#database.prepare("INSERT INTO links (url, note) VALUES (?, ?)").run(url, note);
  }
}
