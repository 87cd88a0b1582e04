"""A package that was given nothing: the variables that the app's source gives it are named. The words are real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vibed.apps.app import Runtime
from vibed.sandboxes.diagnosis import diagnose
from vibed.sandboxes.driver import Limits, Run, RunFailed

MODULES = "/layers/node/node_modules"


def node(error: str, *frames: str) -> list[str]:
    """As Node writes what ended it: a package's line, the error, the frames down to the app's file."""
    stack = [f"    at {frame.replace('~', MODULES)}" for frame in frames]
    return [
        f"{MODULES}/package/index.js:87",
        "  throw new Error()",
        "  ^",
        "",
        error,
        *stack,
        "    at Object.<anonymous> (/app/auth.js:3:14)",
        "    at Module._compile (node:internal/modules/cjs/loader:1521:14)",
        "",
        "Node.js v24.19.0",
    ]


def python(error: str, package: str) -> list[str]:
    return [
        "Traceback (most recent call last):",
        '  File "/app/app.py", line 4, in <module>',
        "    client = Client(KEY)",
        f'  File "/layers/python/lib/python3.13/site-packages/{package}/client.py", line 9, in __init__',
        "    raise ValueError",
        error,
    ]


PASSPORT = node(
    "TypeError: OAuth2Strategy requires a clientID option",
    "Strategy.OAuth2Strategy (~/passport-oauth2/lib/strategy.js:87:34)",
    "new Strategy (~/passport-google-oauth20/lib/strategy.js:52:18)",
)
SUPABASE = node(
    "Error: supabaseUrl is required.",
    "validateSupabaseUrl (~/@supabase/supabase-js/dist/index.cjs:995:25)",
    "createClient (~/@supabase/supabase-js/dist/index.cjs:1462:9)",
)
STRIPE = node(
    "Error: Neither apiKey nor config.authenticator provided",
    "Stripe._setAuthenticator (~/stripe/cjs/stripe.core.js:318:19)",
    "new Stripe (~/stripe/cjs/stripe.core.js:203:14)",
)
OPENAI = node(
    "OpenAIError: Missing credentials. Please pass an `apiKey`, `workloadIdentity`, `adminAPIKey`, or set the"
    " `OPENAI_API_KEY` or `OPENAI_ADMIN_KEY` environment variable.",
    "new OpenAI (~/openai/client.js:157:19)",
)
RESEND = node(
    'Error: Missing API key. Pass it to the constructor `new Resend("re_123")`',
    "new Resend (~/resend/dist/index.cjs:1725:25)",
)
CLERK = node(
    "Error: Publishable key is missing.",
    "parsePublishableKey (~/@clerk/shared/dist/keys.js:86:36)",
)
OPENAI_PYTHON = python(
    "openai.OpenAIError: The api_key client option must be set either by passing api_key to the client or by setting"
    " the OPENAI_API_KEY environment variable",
    "openai",
)
SUPABASE_PYTHON = python("supabase._sync.client.SupabaseException: supabase_url is required", "supabase")


def told(lines: list[str], kind: str, reads: tuple[str, ...], fills: Mapping[str, str]) -> RunFailed:
    runtime = Runtime("general", "t", kind, "app", "test", reads=reads, fills=fills)
    run = Run("a", 1, 1, Path("/x"), runtime, {"GIVEN": "1"}, Limits())
    return diagnose("StartFailed", "", {"exit": {"code": 1, "at": 1.0, "tail": lines}}, run)


@pytest.mark.parametrize(
    ("lines", "reads", "fills", "names"),
    [
        (
            PASSPORT,
            ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "OTHER"),
            {"clientID": "GOOGLE_CLIENT_ID", "clientSecret": "GOOGLE_CLIENT_SECRET"},
            "variables GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET",
        ),
        (SUPABASE, ("SUPABASE_URL", "SUPABASE_KEY"), {}, "variables SUPABASE_URL and SUPABASE_KEY"),
        (SUPABASE, (), {"supabaseUrl": "DB"}, "variable DB, which its source gives as `supabaseUrl`"),
        (STRIPE, ("PAY_KEY",), {"Stripe": "PAY_KEY"}, "variable PAY_KEY, which its source gives as `Stripe`"),
        (OPENAI, ("MY_AI_KEY",), {"apiKey": "MY_AI_KEY"}, "variable MY_AI_KEY"),
        (OPENAI, (), {}, "variables OPENAI_API_KEY and OPENAI_ADMIN_KEY"),
        (RESEND, ("MAIL_KEY",), {"Resend": "MAIL_KEY"}, "variable MAIL_KEY"),
        (CLERK, (), {}, "variables CLERK_PUBLISHABLE_KEY and CLERK_SECRET_KEY"),
        (OPENAI_PYTHON, ("LLM",), {"api_key": "LLM"}, "variable LLM, which its source gives as `api_key`"),
        (OPENAI_PYTHON, (), {}, "variable OPENAI_API_KEY"),
        (SUPABASE_PYTHON, ("SUPABASE_URL",), {"url": "SUPABASE_URL"}, "variable SUPABASE_URL"),
    ],
)
def test_the_variable_that_a_package_should_have_got_is_named(
    lines: list[str], reads: tuple[str, ...], fills: Mapping[str, str], names: str
) -> None:
    error = told(lines, "python" if lines[0].startswith("Traceback") else "node", reads, fills)
    assert f"needs the environment {names}" in error.message
    assert "among the app's environment variables" in (error.hint or "")


def test_one_that_is_set_is_not_said_to_be_missing() -> None:
    assert "GIVEN" not in told(PASSPORT, "node", ("GIVEN",), {"clientID": "GIVEN"}).message


def test_an_error_of_the_apps_own_is_not_laid_on_an_option_of_that_name() -> None:
    lines = ["Error: a name is required", "    at Object.<anonymous> (/app/auth.js:3:14)", "Node.js v24.19.0"]
    assert "environment" not in told(lines, "node", ("FIRST_NAME",), {"name": "FIRST_NAME"}).message


def test_where_only_the_words_of_an_error_are_printed_what_the_source_reads_is_named() -> None:
    line = 'MongoDB connection error: The `uri` parameter to `openUri()` must be a string, got "undefined". Make sure.'
    error = told([line], "node", ("MONGO_URI",), {})
    assert "may need MONGO_URI, which its source reads and which is not set" in error.message
    assert "deploy again with it" in (error.hint or "")
    assert "may need" not in told([line], "node", (), {}).message


@pytest.mark.parametrize(
    "line",
    [
        "2026/11/30 13:47:06 dial tcp :0: connect: connection refused",
        "Error: getaddrinfo ENOTFOUND undefined",
        'sqlalchemy.exc.OperationalError: could not translate host name "None" to address: Name or service not known',
    ],
)
def test_an_address_made_of_variables_that_are_not_set_is_told_with_these(line: str) -> None:
    message = told([line], "go", ("JWT_KEY", "DB_HOST", "DB_PORT"), {}).message
    assert "needs a server whose address it reads from DB_HOST and DB_PORT, which it was not given" in message
    assert "its address" not in told([line], "go", (), {}).message
