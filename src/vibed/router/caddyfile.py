"""Caddy's whole configuration: one wildcard route, written once and never reloaded for an app.

A request for `<id>.<domain>` is for the app's site, if it has one, and otherwise for its socket (`vibed.router.markers`).
When that cannot be dialled, because there is none or nobody listens, the activator is asked (a bodiless GET that it
holds until the app is there): 204 means "look again", anything else is the answer. So a request with a body is forwarded
once, by Caddy, and one that has reached an app is never replayed. While vibeD is down the fallback site answers 503 with
Retry-After. The second look is Caddy's handling of an error, whose status it would give to a file that it serves then: a
site is therefore served with an explicit 200, and whole. A socket that cannot be dialled is nothing to report (any name
that is no app's is one), so Caddy's log of failed requests is off: who answers instead has a log of its own.
"""

from __future__ import annotations

from vibed.config import Config
from vibed.drivers.media_types import TYPES, UNKNOWN
from vibed.layout import Layout

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
		timeouts {
			read_header 30s
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
		@ruled vars_regexp {http.matchers.file.relative} [.]r$
		handle @ruled {
			reverse_proxy unix/@SITES@ {
				header_up X-Vibed-Site {http.matchers.file.relative}
			}
		}
		@spa vars_regexp {http.matchers.file.relative} [.]p$
		handle @spa {
			import files {args[0]} app
		}
		handle {
			import files {args[0]} pages
		}
	}
	handle {
		@grpc header Content-Type application/grpc*
		reverse_proxy @grpc unix/@APPS@/{labels.@LABEL@}.sock {
			transport http {
				versions h2c
			}
		}
		reverse_proxy unix/@APPS@/{labels.@LABEL@}.sock
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
	handle {
		@found file {path} {path}.html {path}/index.html
		handle @found {
			@within {
				vars_regexp {file_match.relative} /index[.]html$
				not path */index.html
				path_regexp bare ^(/.*)$
			}
			redir @within {re.bare.1}/{?query} 308
			rewrite {file_match.relative}
			import served-{args[0]}
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
		fail_duration 1s
		method GET
		rewrite /?
		header_up -Upgrade
		header_up -Connection
		header_up -X-Vibed-*
		header_up -Range
		header_up -If-*
		@activated status 204
		handle_response @activated {
			import app again
		}
	}
}

http:// {
	bind unix/@FALLBACK@|0600
	header Retry-After 2
	header Cache-Control no-store
	header Content-Type application/json
	respond `{"code":"VibedUnavailable","message":"vibeD is restarting","details":{"retryable":true,"hint":"try again in a few seconds"}}` 503
}

@API_HOSTS@ {
	bind @BIND@
	reverse_proxy unix/@SERVE@ {
		flush_interval -1
		transport http {
			keepalive 60s
		}
	}
	handle_errors {
		header Retry-After 2
		header Cache-Control no-store
		header Content-Type application/json
		@restarting expression `{http.error.message}.contains("dial ")`
		respond @restarting `{"code":"VibedUnavailable","message":"vibeD is restarting","details":{"retryable":true,"hint":"try again in a few seconds"}}` 503
		respond `{"code":"VibedUnavailable","message":"vibeD went away during the request","details":{"retryable":true,"hint":"try again in a few seconds; a deploy with an Idempotency-Key is safe to repeat"}}` 503
	}
}

http://*.@DOMAIN@:@PORT@ {
	bind @BIND@
	import app first
	handle_errors {
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
			header Retry-After 2
			header Content-Type application/json
			respond `{"code":"AppUnreachable","message":"the app did not answer","details":{"retryable":true}}` {err.status_code}
		}
	}
}

http://:@PORT@ {
	bind @BIND@
	header Content-Type application/json
	respond `{"code":"UnknownHost","message":"nothing is served under this name","details":{"retryable":false,"hint":"apps are at <id>.@DOMAIN@:@PORT@, the API at @DOMAIN@:@PORT@"}}` 404
}
"""


def caddyfile(config: Config, layout: Layout) -> str:
    """The Caddyfile of one vibeD."""
    hosts = [config.domain, "127.0.0.1", "[::1]"]
    values = {
        "APPS": str(layout.apps),
        "ACTIVATOR": str(layout.activator_socket),
        "FALLBACK": str(layout.fallback_socket),
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
