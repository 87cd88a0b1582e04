export interface Shortcut {
  slug: string;
  url: string;
}

class Shortcuts {
  // Lives as long as the isolate does: enough for a demonstration.
  readonly #known = new Map<string, string>([
    ["hono", "https://hono.dev/"],
    ["mdn", "https://developer.mozilla.org/"],
  ]);

  all(): Shortcut[] {
    return [...this.#known].map(([slug, url]) => ({ slug, url })).sort((a, b) => a.slug.localeCompare(b.slug));
  }

  add(slug: string, url: string): Shortcut {
    this.#known.set(slug, url);
    return { slug, url };
  }

  find(slug: string): Shortcut | undefined {
    const url = this.#known.get(slug);
    return url === undefined ? undefined : { slug, url };
  }
}

export const shortcuts = new Shortcuts();
