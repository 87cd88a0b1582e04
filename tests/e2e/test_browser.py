"""A real browser at the URLs that people open."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e import samples
from tests.e2e.conftest import Apps
from tests.e2e.instance import CHECKOUT, Instance

EXAMPLES = CHECKOUT / "examples"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium (`python -m tests.prepare system` installs it)."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """A page in a context of its own; a screenshot of it is kept in the test's folder."""
    context = chromium.new_context()
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    yield opened
    opened.screenshot(path=tmp_path / "page.png", full_page=True)
    context.close()


def _errors(page: Page) -> list[str]:
    told: list[str] = []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: told.append(f"{request.url}: {request.failure}"))
    page.on("response", lambda answer: told.append(f"{answer.url}: {answer.status}") if answer.status >= 400 else None)
    return told


def test_the_first_live_app_is_whole(vibed: Instance, page: Page) -> None:
    errors = _errors(page)
    page.goto(vibed.client.url("welcome"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Now you have a URL")
    expect(page.locator("#host")).to_have_text("welcome.localhost")
    for fact in ("#first-byte", "#round-trip", "#weight"):
        expect(page.locator(fact)).to_have_text(re.compile(r"^[\d.]+ (ms|kB)$"))
    assert errors == []


def test_a_single_page_app_keeps_its_route_over_a_reload(vibed: Instance, apps: Apps, page: Page) -> None:
    app = apps.ready(EXAMPLES / "static-spa")
    errors = _errors(page)
    page.goto(vibed.client.url(app))
    page.get_by_role("link", name="Teasel").click()
    expect(page.get_by_role("heading")).to_have_text("Teasel")
    assert page.url == vibed.client.url(app, "/plants/teasel")
    page.reload()
    expect(page.get_by_role("heading")).to_have_text("Teasel")
    page.go_back()
    expect(page.get_by_role("heading")).to_have_text("Field notes")
    assert errors == []


COUNTED = "import { word } from './word.js'; document.querySelector('h1').textContent = word;"


def test_a_folder_opened_without_its_slash_finds_its_own_files(vibed: Instance, apps: Apps, page: Page) -> None:
    app = apps.ready(
        {
            "index.html": "<!doctype html><link rel=icon href=data:,><h1>home</h1>",
            "calculator/index.html": "<!doctype html><link rel=icon href=data:,><h1></h1>"
            "<script type=module src=main.js></script>",
            "calculator/main.js": COUNTED,
            "calculator/word.js": "export const word = 'calculates';",
        }
    )
    errors = _errors(page)
    page.goto(vibed.client.url(app, "/calculator"))
    expect(page.get_by_role("heading")).to_have_text("calculates")
    assert page.url == vibed.client.url(app, "/calculator/")
    assert errors == []


def test_a_site_built_for_a_prefix_is_no_blank_page(vibed: Instance, apps: Apps, page: Page) -> None:
    index = (
        "<!doctype html><link rel=icon href=data:,><div id=root></div>"
        '<script type=module src="/my-repo/assets/main.js"></script>'
    )
    # as a router of a single-page app has it: it knows routes below its prefix only
    main = """
        const at = location.pathname;
        const route = at.startsWith('/my-repo/') ? at.slice(8) : 'a path of nobody';
        document.querySelector('#root').innerHTML = `<h1>${route}</h1>`;
    """
    app = apps.ready({"index.html": index, "assets/main.js": main, "package.json": "{}"})
    errors = _errors(page)
    page.goto(vibed.client.url(app))
    expect(page.get_by_role("heading")).to_have_text("/")
    assert page.url == vibed.client.url(app, "/my-repo/")
    page.goto(vibed.client.url(app, "/my-repo/orders/7"))
    expect(page.get_by_role("heading")).to_have_text("/orders/7")
    assert errors == []


@pytest.mark.parametrize(
    ("folder", "template"),
    [("worker-assets", "workerd"), ("python-websocket", "python-313"), ("node-ws-chat", "node-24")],
)
def test_a_page_with_a_websocket_talks(vibed: Instance, apps: Apps, page: Page, folder: str, template: str) -> None:
    vibed.client.wait_for_template(template)
    app = apps.ready(EXAMPLES / folder)
    page.goto(vibed.client.url(app, "/?name=Ada"))
    expect(page.locator("#state")).to_contain_text("connected")
    page.locator("#text").fill("is anybody there?")
    page.locator("#text").press("Enter")
    expect(page.get_by_text("is anybody there?")).to_be_visible()


def test_a_chat_survives_a_new_version(vibed: Instance, apps: Apps, page: Page) -> None:
    """The page is told that its socket is over (1012) and comes back, on the new version."""
    vibed.client.wait_for_template("node-24")
    app = apps.ready(EXAMPLES / "node-ws-chat")
    page.goto(vibed.client.url(app, "/?name=Ada"))
    expect(page.locator("#state")).to_contain_text("connected")
    page.locator("#text").fill("before")
    page.locator("#text").press("Enter")
    expect(page.get_by_text("Ada: before")).to_be_visible()
    vibed.client.deploy_ready(app, EXAMPLES / "node-ws-chat")
    expect(page.get_by_text("Ada: before")).to_have_count(0, timeout=40_000)
    expect(page.locator("#state")).to_contain_text("connected")
    page.locator("#text").fill("after")
    page.locator("#text").press("Enter")
    expect(page.get_by_text("Ada: after")).to_be_visible()


@pytest.mark.parametrize(("folder", "template"), [("fastapi-notes", "python-313"), ("fastify-sse", "node-24")])
def test_a_page_with_server_sent_events_moves(
    vibed: Instance, apps: Apps, page: Page, folder: str, template: str
) -> None:
    vibed.client.wait_for_template(template)
    app = apps.ready(EXAMPLES / folder)
    page.goto(vibed.client.url(app))
    if folder == "fastify-sse":
        page.wait_for_function("Number(document.getElementById('count').textContent) >= 3")
        return
    expect(page.locator("#state")).to_have_text("live")
    assert vibed.client.visit(app, "/notes", "POST", json={"text": "from elsewhere"}).status_code == 201
    expect(page.get_by_text("from elsewhere")).to_be_visible()


@pytest.mark.timeout(600)
def test_a_streamlit_app_draws_its_charts(vibed: Instance, apps: Apps, page: Page) -> None:
    vibed.client.wait_for_template("python-313")
    app = vibed.client.deploy_ready(apps.name(), EXAMPLES / "streamlit-dashboard", settle_s=400).app_id
    page.goto(vibed.client.url(app))
    expect(page.get_by_role("heading", name="Cafeteria sales")).to_be_visible(timeout=90_000)
    expect(page.locator("[data-testid='stImage'] img, [data-testid='stImageContainer'] img").first).to_be_visible(
        timeout=90_000
    )


def test_a_django_form_is_accepted_at_its_own_origin(vibed: Instance, apps: Apps, page: Page) -> None:
    vibed.client.wait_for_template("python-313")
    app = apps.ready(EXAMPLES / "django-poll")
    page.goto(vibed.client.url(app))
    page.get_by_label("The park, with sandwiches").check()
    page.get_by_role("button", name="Vote").click()
    expect(page.get_by_text("One more for The park, with sandwiches.")).to_be_visible()


def test_an_unknown_name_shows_its_page(vibed: Instance, page: Page) -> None:
    answer = page.goto(vibed.client.url("nobody-took-this"))
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading")).to_contain_text("There is no app called nobody-took-this here")


def test_a_failed_app_shows_its_page(vibed: Instance, apps: Apps, page: Page) -> None:
    vibed.client.wait_for_template("python-313")
    deployed = apps.deploy(samples.python_after("raise RuntimeError('no')"))
    answer = page.goto(vibed.client.url(deployed.app_id))
    assert answer is not None
    assert answer.status == 503
    expect(page.get_by_role("heading")).to_have_text(f"{deployed.app_id} is not running")


def test_the_starting_page_becomes_the_app_by_itself(vibed: Instance, apps: Apps, page: Page) -> None:
    """The visitor does nothing; the page asks again."""
    import threading

    vibed.client.wait_for_template("python-313")
    name = apps.name()
    source = samples.python_after("import time", "time.sleep(13)")
    thread = threading.Thread(target=lambda: vibed.client_with(vibed.admin_key).post_deploy(name, source))
    thread.start()
    while vibed.client.api("GET", f"/v1/apps/{name}").status_code != 200:
        page.wait_for_timeout(50)
    page.goto(vibed.client.url(name))
    expect(page.get_by_role("heading")).to_have_text(f"{name} is starting")
    expect(page.get_by_text("version 1")).to_be_visible(timeout=60_000)
    thread.join()


_CALLS = """
async ([api, key]) => {
  const tried = {};
  const attempt = async (name, call) => {
    try { const answer = await call(); tried[name] = `${answer.type} ${answer.status}`; }
    catch (error) { tried[name] = "blocked"; }
  };
  const form = (name) => {
    const body = new FormData();
    body.append("metadata", JSON.stringify({ name }));
    body.append("source", new Blob([new Uint8Array([31, 139, 8, 0])]), "source.tar.gz");
    return body;
  };
  const authorization = { authorization: `Bearer ${key}` };
  await attempt("read", () => fetch(`${api}/v1/apps`));
  await attempt("read with a stolen key", () => fetch(`${api}/v1/apps`, { headers: authorization }));
  await attempt("deploy", () => fetch(`${api}/v1/deploy`, { method: "POST", body: form("stolen-1") }));
  await attempt("deploy with a stolen key", () =>
    fetch(`${api}/v1/deploy`, { method: "POST", headers: authorization, body: form("stolen-2") }));
  await attempt("deploy blindly", () =>
    fetch(`${api}/v1/deploy`, { method: "POST", mode: "no-cors", credentials: "include", body: form("stolen-3") }));
  await attempt("mcp", () => fetch(`${api}/mcp`, { method: "POST", headers: authorization, body: "{}" }));
  return tried;
}
"""


def test_a_page_that_an_app_serves_cannot_use_the_api(vibed: Instance, apps: Apps, page: Page) -> None:
    """Apps are sibling origins of the API; not even a stolen key helps a page."""
    app = apps.ready(samples.static(1))
    before = vibed.client.ask("GET", "/v1/apps")["total"]
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if vibed.api_url in answer.url else None)
    page.goto(vibed.client.url(app))
    tried = page.evaluate(_CALLS, [vibed.api_url, vibed.admin_key])
    blind = tried.pop("deploy blindly")
    assert set(tried.values()) == {"blocked"}, json.dumps(tried)
    assert blind in ("blocked", "opaque 0")
    assert all(status >= 400 for status in answers), answers
    assert vibed.client.ask("GET", "/v1/apps")["total"] == before


def test_the_api_cannot_be_framed_by_an_app(vibed: Instance, apps: Apps, page: Page) -> None:
    app = apps.ready({"index.html": f'<iframe src="{vibed.api_url}/healthz" id="f"></iframe>'})
    page.goto(vibed.client.url(app))
    frame = page.frames[-1]
    frame.wait_for_load_state()
    assert frame.url.startswith("chrome-error:"), frame.url
