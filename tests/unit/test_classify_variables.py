"""Environment variables that a source reads and has no value for."""

from __future__ import annotations

import pytest

from tests.unit.classify_trees import table_of
from vibed.classify.classifier import classify
from vibed.classify.variables import filled_in, read_in


@pytest.mark.parametrize(
    ("kind", "text", "names"),
    [
        ("python", "os.environ['A_KEY']; os.getenv(\"B\"); environ.get('C')", ("A_KEY", "B", "C")),
        ("python", "os.getenv('A', 'x'); os.environ.get('B', '') ; os.getenv('C') or 'x'", ()),
        (
            "python",
            "os.environ['A'] = 'x'\nprint(os.environ['A'])\nos.environ.setdefault('B', '1')\nos.environ['B']",
            (),
        ),
        ("python", "os.environ['A'] == 'x'", ("A",)),
        ("python", "int(os.environ['PORT'])", ()),
        ("node", "process.env.API_KEY.trim(); process.env['OTHER']", ("API_KEY", "OTHER")),
        ("node", "process.env.A ?? 'x'; process.env.B || 3; process.env.C = '1'; process.env.D ||= '2'", ()),
        ("node", "const { A, B: b, C = 'x' } = process.env", ("A", "B")),
        ("node", "app.listen(process.env.PORT); process.env.NODE_ENV", ()),
        ("go", 'key := os.Getenv("KEY"); _, ok := os.LookupEnv("OK")', ("KEY", "OK")),
        ("static", "process.env.A", ()),
    ],
)
def test_what_is_read_without_a_default_is_named(kind: str, text: str, names: tuple[str, ...]) -> None:
    assert read_in([text], kind) == names


def test_a_version_knows_what_the_files_that_run_read_and_none_where_an_env_file_may_give_them() -> None:
    app = "import os, flask\nfrom settings_of_mine import KEY\napp = flask.Flask(__name__)\nos.environ['GIVEN']\n"
    mine = "import os\nKEY = os.environ['KEY']\n"
    files = {"app.py": app, "settings_of_mine.py": mine, "other.py": "import os\nos.environ['UNUSED']\n"}
    assert classify(table_of(files)).runtime().reads == ("GIVEN", "KEY")
    assert classify(table_of({**files, ".env": "GIVEN=1\n"})).runtime().reads == ()


@pytest.mark.parametrize(
    ("kind", "text", "filled"),
    [
        (
            "node",
            "new GoogleStrategy({ clientID: process.env.GOOGLE_CLIENT_ID, secret: process.env.GOOGLE_SECRET || '' })",
            {"clientID": "GOOGLE_CLIENT_ID", "secret": "GOOGLE_SECRET"},
        ),
        ("node", "const supabaseUrl: string = process.env.SUPABASE_URL!", {"supabaseUrl": "SUPABASE_URL"}),
        ("node", "const stripe = new Stripe(process.env.STRIPE_KEY as string)", {"Stripe": "STRIPE_KEY"}),
        ("node", "const _KEY = process.env['MY_KEY']", {"_KEY": "MY_KEY"}),
        ("node", "const key: string | undefined = process.env.A_KEY", {"key": "A_KEY"}),
        ("node", "const size = process.env['SIZE'] ?? 10", {}),
        ("python", "url: str = os.environ['DATABASE_URL']", {"url": "DATABASE_URL"}),
        ("python", "    token: str | None = os.getenv('TOKEN_OF')", {"token": "TOKEN_OF"}),
        ("python", "else:\n    key = os.getenv('MY_KEY')", {"key": "MY_KEY"}),
        ("node", "const size = process.env.SIZE || 10; const port = process.env.PORT", {}),
        ("node", "if (key === process.env.KEY) {}", {}),
        ("python", "OpenAI(api_key=os.getenv('MY_KEY'))", {"api_key": "MY_KEY"}),
        ("python", "app.config['CLIENT'] = os.environ.get(\"CLIENT_ID\", '')", {"CLIENT": "CLIENT_ID"}),
        ("python", "create_client(os.environ.get('SUPABASE_URL'), key)", {"create_client": "SUPABASE_URL"}),
        ("python", "size = os.getenv('SIZE', '10')", {}),
        ("python", "name = os.getenv('NAME') or 'x'", {}),
    ],
)
def test_what_gets_the_value_of_a_variable_is_known_by_its_name(kind: str, text: str, filled: dict[str, str]) -> None:
    assert filled_in([text], kind) == filled


def test_what_an_example_leaves_to_be_filled_in_is_named_too_since_a_package_may_read_it() -> None:
    app = "const http = require('http')\nhttp.createServer((q, r) => r.end(process.env.OWN)).listen(3000)\n"
    example = 'SUPABASE_URL={YOUR_URL}\nexport KEY="" # of the project\nSIZE=10\nPORT=\nNAME=your-name\nOWN=\n'
    files = {"server.js": app, "package.json": "{}", ".env.example": example}
    assert classify(table_of(files)).runtime().reads == ("OWN", "SUPABASE_URL", "KEY", "NAME")
    assert classify(table_of({**files, ".env": "KEY=1\n"})).runtime().reads == ()
