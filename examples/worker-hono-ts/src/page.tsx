import type { Shortcut } from "./shortcuts";

const style = `
  body { font: 17px/1.6 system-ui; max-width: 40rem; margin: 10vh auto; padding: 0 1.5rem; }
  li { margin: .4rem 0; } code { background: #8882; padding: .1rem .35rem; border-radius: .3rem; }
`;

export function Page({ title, shortcuts }: { title: string; shortcuts: Shortcut[] }) {
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <title>{title}</title>
        <style>{style}</style>
      </head>
      <body>
        <h1>{title}</h1>
        <ul>
          {shortcuts.map((shortcut) => (
            <li>
              <a href={`/go/${shortcut.slug}`}>
                <code>/go/{shortcut.slug}</code>
              </a>{" "}
              {shortcut.url}
            </li>
          ))}
        </ul>
        <p>
          Add one with <code>POST /api/shortcuts</code>.
        </p>
      </body>
    </html>
  );
}
