"""Caddy's whole configuration: one wildcard route, written once and never reloaded for an app.

A request for `<id>.<domain>` is for the app's site, if it has one, and otherwise for its socket (`vibed.router.markers`).
When that cannot be dialled, because there is none or nobody listens, the activator is asked (a bodiless GET that it
holds until the app is there): 204 means "look again", anything else is the answer. So a request with a body is forwarded
once, by Caddy, and one that has reached an app is never replayed. While vibeD is down the fallback site answers 503 with
Retry-After. The second look is Caddy's handling of an error, whose status it would give to a file that it serves then: a
site is therefore served with an explicit 200, and whole. A socket that cannot be dialled is nothing to report (any name
that is no app's is one), so Caddy's log of failed requests is off: who answers instead has a log of its own.

The proxy is transparent: what Caddy would change unasked is switched off here, and what it changes all the same is
listed in docs/reference/proxy.md, whose table `tests/e2e/test_proxy_conformance.py` holds.
"""

from __future__ import annotations

import json

from vibed.config import Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout

HEAD = "64KiB"
"""The largest head of a request. Apps' own limits are below it (Node 16 KiB), the ingress' above."""
APP_BODY_IDLE = "5m"
"""How long the body of a request to an app may pause, once it has begun to answer (before, the ingress is stricter); a
gRPC stream for ever."""
API_BODY_IDLE = "1m"
"""The same for the API, which is stricter itself. Where Caddy's own limit ends a request there is no answer to it, and
the connection stays until the client ends it: so it is never the first, and bounds what follows an early answer."""

_TEMPLATE = """\
{
	admin off
	persist_config off
	auto_https off
	grace_period 5s
	log {
		level WARN
		format json
		exclude http.log.error
	}
	servers {
		protocols h1 h2c
		enable_full_duplex
		max_header_size @HEAD@
		timeouts {
			read_header 30s
			read_body_idle -1s
			idle 5m
		}
	}
}

(app) {
	@site-{args[0]} file {
		root @APPS@
		try_files /{labels.@LABEL@}/*.[prs]
	}
	handle @site-{args[0]} {
		timeouts {
			read_timeout @APP_BODY_IDLE@
		}
		@plain vars_regexp {http.matchers.file.relative} [.]s$
		handle @plain {
			import files {args[0]} pages
		}
		@spa vars_regexp {http.matchers.file.relative} [.]p$
		handle @spa {
			import files {args[0]} app
		}
		handle {
			reverse_proxy unix/@SITES@ {
				header_up X-Vibed-Site {http.matchers.file.relative}
				import proxied-soon
				transport http {
					compression off
				}
			}
		}
	}
	handle {
		import server {args[0]}
	}
}

(server) {
	@grpc-{args[0]} header Content-Type application/grpc*
	handle @grpc-{args[0]} {
		reverse_proxy unix/@APPS@/{labels.@LABEL@}.sock {
			import proxied-{args[0]}
			transport http {
				versions h2c
				compression off
			}
		}
	}
	handle {
		timeouts {
			read_timeout @APP_BODY_IDLE@
		}
		reverse_proxy unix/@APPS@/{labels.@LABEL@}.sock {
			import proxied-{args[0]}
			transport http {
				compression off
				expect_continue_timeout 5s
			}
		}
	}
}

(proxied-first) {
	flush_interval -1
}

(proxied-soon) {
	flush_interval -1
	lb_try_duration 2s
	lb_try_interval 50ms
	import never-twice
}

(proxied-again) {
	flush_interval -1
	lb_try_duration 5s
	lb_try_interval 20ms
	import never-twice
}

(never-twice) {
	lb_retry_match {
		method NONE
	}
}

(files) {
	root * {http.matchers.file.absolute}.d
	header ?Cache-Control no-cache
	header X-Content-Type-Options nosniff
	map {http.request.uri.path.file.ext} {media_type} {
		@TYPES@
		default @UNKNOWN@
	}
	@hidden {
		path */.*
		not path /.well-known/*
	}
	handle @hidden {
		import missing
	}
	@folder path */
	handle @folder {
		@index file {path}index.html
		handle @index {
			rewrite {file_match.relative}
			import served-{args[0]}
		}
		@bare path_regexp bare ^(/.*[^/])/$
		handle @bare {
			@page file {re.bare.1} {re.bare.1}.html
			redir @page {re.bare.1}{?query} 308
			import otherwise-{args[1]} {args[0]}
		}
		import otherwise-{args[1]} {args[0]}
	}
	@exact file {path}
	handle @exact {
		import served-{args[0]}
	}
	handle {
		@page file {path}.html
		handle @page {
			rewrite {file_match.relative}
			import served-{args[0]}
		}
		@within file {path}/index.html
		handle @within {
			@bare path_regexp bare ^(/.*)$
			redir @bare {re.bare.1}/{?query} 308
		}
		import otherwise-{args[1]} {args[0]}
	}
}

(served-first) {
	route {
		header Content-Type {media_type}
		file_server {
			disable_canonical_uris
		}
	}
}

(served-again) {
	route {
		header Content-Type {media_type}
		file_server {
			disable_canonical_uris
			status 200
		}
	}
}

(otherwise-app) {
	handle {
		rewrite /index.html
		import served-{args[0]}
	}
}

(otherwise-pages) {
	handle {
		import missing
	}
}

(missing) {
	request_header -Range
	request_header -If-*
	@custom file /404.html
	handle @custom {
		rewrite /404.html
		route {
			header Content-Type {media_type}
			file_server {
				status 404
			}
		}
	}
	handle {
		respond "404: this site has no such page" 404
	}
}

(activate) {
	reverse_proxy unix/@ACTIVATOR@ unix/@FALLBACK@ {
		lb_policy first
		lb_retries 1
		import never-twice
		fail_duration 1s
		method GET
		rewrite /?
		header_up -Upgrade
		header_up -Connection
		header_up -X-Vibed-*
		header_up -Range
		header_up -If-*
		header_up -Expect
		transport http {
			compression off
		}
		@activated status 204
		handle_response @activated {
			import app again
		}
	}
}

(said) {
	header Cache-Control no-store
	header Content-Type application/json
}

(later) {
	import said
	header Retry-After 2
}

http:// {
	bind unix/@FALLBACK@|0600
	import later
	respond `@RESTARTING@` 503
}

@API_HOSTS@ {
	bind @BIND@
	@large expression `{http.request.header.Content-Length} != "" && int({http.request.header.Content-Length}) > @LARGEST@`
	handle @large {
		import said
		respond `@TOO_LARGE@` 413
	}
	handle {
		request_body {
			max_size @LARGEST@
		}
		timeouts {
			read_timeout @API_BODY_IDLE@
		}
		reverse_proxy unix/@SERVE@ {
			import proxied-soon
			transport http {
				keepalive 60s
				compression off
				expect_continue_timeout 5s
			}
		}
	}
	handle_errors {
		@outgrown expression `{http.error.status_code} == 413`
		handle @outgrown {
			import said
			respond `@TOO_LARGE@` 413
		}
		@restarting expression `{http.error.message}.contains("dial ")`
		handle @restarting {
			import later
			respond `@RESTARTING@` 503
		}
		handle {
			import later
			respond `@WENT_AWAY@` 503
		}
	}
}

http://*.@DOMAIN@:@PORT@ {
	bind @BIND@ unix/@FRONT@|0660
	import app first
	handle_errors {
		@busy expression `{http.error.message}.contains("resource temporarily unavailable")`
		handle @busy {
			import server again
		}
		@absent expression `{http.error.status_code} == 502 && {http.error.message}.contains("dial ")`
		handle @absent {
			request_header -Range
			request_header -If-*
			import activate
		}
		@site vars_regexp {http.vars.root} [.]d$
		handle @site {
			header Content-Type "text/plain; charset=utf-8"
			@method expression `{http.error.status_code} == 405`
			respond @method "405: a site is read with GET and HEAD" 405
			respond "404: this site has no such page" {err.status_code}
		}
		handle {
			import said
			respond `@UNREACHABLE@` {err.status_code}
		}
	}
}

http://:@PORT@ {
	bind @BIND@
	import said
	respond `@UNKNOWN_HOST@` 404
}
"""


def _error(code: str, message: str, hint: str = "", *, retryable: bool = False) -> str:
    """The body of an error, as the API has them."""
    details: dict[str, object] = {"retryable": retryable}
    if hint:
        details["hint"] = hint
    return json.dumps({"code": code, "message": message, "details": details})


def caddyfile(config: Config, layout: Layout) -> str:
    """The Caddyfile of one vibeD."""
    hosts = [config.domain, "127.0.0.1", "[::1]"]
    largest = 2 * config.max_source_mb * 1_000_000  # what is somewhat too large the API itself refuses, by its route
    place = f"{config.domain}:{config.port}"
    values = {
        "HEAD": HEAD,
        "APP_BODY_IDLE": APP_BODY_IDLE,
        "API_BODY_IDLE": API_BODY_IDLE,
        "LARGEST": str(largest),
        "RESTARTING": _error("VibedUnavailable", "vibeD is restarting", "try again in a few seconds", retryable=True),
        "WENT_AWAY": _error(
            "VibedUnavailable",
            "vibeD went away during the request",
            "try again in a few seconds; a deploy with an Idempotency-Key is safe to repeat",
            retryable=True,
        ),
        "TOO_LARGE": _error("BodyTooLarge", f"the body has more than {largest} bytes", "send less"),
        "UNREACHABLE": _error("AppUnreachable", "the connection to the app broke before it answered"),
        "UNKNOWN_HOST": _error(
            "UnknownHost", "nothing is served under this name", f"apps are at <id>.{place}, the API at {place}"
        ),
        "APPS": str(layout.apps),
        "ACTIVATOR": str(layout.activator_socket),
        "FALLBACK": str(layout.fallback_socket),
        "FRONT": str(layout.front_socket),
        "SERVE": str(layout.serve_socket),
        "API_HOSTS": " ".join(f"http://{host}:{config.port}" for host in hosts),
        "BIND": config.host.strip("[]"),
        "DOMAIN": config.domain,
        "PORT": str(config.port),
        "LABEL": str(len(config.domain.split("."))),
        "SITES": str(layout.sites_socket),
        "TYPES": "\n\t\t".join(
            f'.{end} "{kind}"' for ending, kind in TYPES.items() for end in (ending, ending.upper())
        ),
        "UNKNOWN": UNKNOWN,
    }
    text = _TEMPLATE
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
