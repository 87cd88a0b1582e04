"""Apps, versions, events and keys as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vibed.api.asking import Heard
from vibed.api.settling import DeployResult
from vibed.apps.app import App, Crash, Event, Key, Runtime, Version
from vibed.apps.domains import Domain
from vibed.apps.standing import of_app, standing
from vibed.config import Config
from vibed.controller.link import BakeFigures, LayerFigures, TemplateFigures
from vibed.sources.contents import Contents

View = dict[str, Any]


def when(at: float | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def runtime_view(runtime: Runtime) -> View:
    """What the classifier decided, and why."""
    return {
        "lane": runtime.lane,
        "template": runtime.template,
        "kind": runtime.kind,
        "entrypoint": runtime.entrypoint,
        "why": runtime.why,
    }


def app_view(app: App, config: Config, storage_bytes: int | None = None, failing: str | None = None) -> View:
    """An app; its phase is that of the version that should serve. `failing` is `LogStreams.failing` of it."""
    status, stands = app.status, of_app(app)
    return {
        "app_id": app.app_id,
        "name": app.app_id,
        "owner": app.owner,
        "phase": stands.phase.value,
        "reason": stands.reason,
        "message": "; ".join(text for text in (stands.message, failing) if text),
        "url": config.app_url(app.app_id),
        "status_url": f"{config.api_url}/v1/apps/{app.app_id}",
        "runtime": runtime_view(app.runtime),
        "isolation": status.isolation,
        "version": app.version,
        "serving_version": status.serving_version,
        "settled": app.settled,
        "env_names": list(app.env_names),
        "restarts": status.restarts,
        "storage_bytes": storage_bytes,
        "failing": failing,
        "last_crash": None if status.last_crash is None else _crash_view(status.last_crash),
        "created_at": when(app.created_at),
        "last_deployed_at": when(app.last_deployed_at),
        "updated_at": when(status.updated_at),
    }


def _crash_view(crash: Crash) -> View:
    return {
        "at": when(crash.at),
        "version": crash.version,
        "message": crash.message,
        "out_of_memory": crash.oom,
        "error": crash.error,
    }


def deploy_view(result: DeployResult, config: Config) -> View:
    """The answer of every route (and tool) that makes a version."""
    version, stands = result.version, result.standing
    return {
        "app_id": version.app_id,
        "url": config.app_url(version.app_id),
        "status_url": f"{config.api_url}/v1/apps/{version.app_id}",
        "version": version.number,
        "created": result.created,
        "changed": result.changed,
        "phase": stands.phase.value,
        "reason": stands.reason,
        "message": stands.message,
        "serving_version": stands.serving_version,
        "settled": stands.final,
        "runtime": runtime_view(version.runtime),
        "isolation": result.app.status.isolation if stands.live else "",
        "notes": [*result.notes, *version.runtime.notes],
        "env_names": sorted(version.env),
        "timings": dict(result.timings),
    }


def version_view(app: App, version: Version, *, with_env: bool = False) -> View:
    """One version. Values of env are shown where one version is asked for, to those who may read the source anyway."""
    stands = standing(app, version.number, version.result)
    view: View = {
        "app_id": version.app_id,
        "version": version.number,
        "phase": stands.phase.value,
        "reason": stands.reason,
        "message": stands.message,
        "serving": stands.live,
        "serving_version": stands.serving_version,
        "settled": stands.final,
        "runtime": runtime_view(version.runtime),
        "source_digest": version.source_digest,
        "source_size": version.source_size,
        "source_kept": version.source_kept,
        "env_names": sorted(version.env),
        "resources": {"cpu": version.resources.cpu, "memory_mb": version.resources.memory_mb},
        "created_at": when(version.created_at),
        "created_by": version.created_by,
        "rolled_back_from": version.rolled_back_from,
        "timings": dict(version.timings),
        "notes": list(version.runtime.notes),
    }
    if with_env:
        view["env"] = [{"name": name, "value": value} for name, value in version.env.items()]
    return view


def contents_view(app_id: str, version: int, contents: Contents) -> View:
    """Files of a version's source."""
    return {
        "app_id": app_id,
        "version": version,
        "files": [
            {name: value for name, value in asdict(file).items() if value is not None} for file in contents.files
        ],
        "total": contents.total,
        "left_out": list(contents.left_out),
    }


def heard_view(heard: Heard, lines: list[Any], error: str | None) -> View:
    """What an app answered, and what it printed meanwhile."""
    return {
        "status": heard.status,
        "headers": [{"name": name, "value": value} for name, value in heard.headers],
        "body": heard.body,
        "base64": heard.base64,
        "size": heard.size,
        "ms": heard.ms,
        "log": lines,
        "error": error,
    }


def event_view(event: Event) -> View:
    """Something that happened to an app."""
    return {
        "seq": event.seq,
        "at": when(event.at),
        "kind": event.kind,
        "reason": event.reason,
        "message": event.message,
        "version": event.version,
    }


def domain_view(domain: Domain, config: Config) -> View:
    """A domain of an app, with the record that shows whose it is."""
    return {
        "name": domain.name,
        "app_id": domain.app_id,
        "url": config.own_url(domain.name),
        "verified": domain.verified_at is not None,
        "record": {"name": domain.record, "type": "TXT", "text": domain.text},
        "created_at": when(domain.created_at),
        "created_by": domain.created_by,
        "verified_at": when(domain.verified_at),
    }


def key_view(key: Key) -> View:
    """A key without its secret."""
    return {
        "key_id": key.key_id,
        "owner": key.owner,
        "admin": key.admin,
        "label": key.label,
        "created_at": when(key.created_at),
        "last_used_at": when(key.last_used_at),
    }


def template_view(figures: TemplateFigures) -> View:
    """A template with its real figures."""
    return {
        "name": figures.name,
        "lane": figures.lane,
        "description": figures.description,
        "kind": figures.kind,
        "warm_pool_size": figures.warm_pool_size,
        "ready": figures.ready,
        "claimed": figures.claimed,
        "isolation": figures.isolation,
        "packages": dict(figures.packages),
        "available": figures.available,
        "reason": figures.reason,
        "building": figures.building,
        "progress": figures.progress,
        "on_need": figures.on_need,
        "limitations": list(figures.limitations),
    }


def layer_view(layer: LayerFigures) -> View:
    """What was installed for apps."""
    return {
        "key": layer.key,
        "kind": layer.kind,
        "template": layer.template,
        "bytes": layer.bytes,
        "packages": dict(layer.packages),
        "made_at": when(layer.made_at),
        "used_at": when(layer.used_at),
        "took_s": layer.took_s,
        "builds": layer.builds,
        "private": layer.private,
        "apps": list(layer.apps),
        "pinned": layer.pinned,
    }


def bake_view(bake: BakeFigures) -> View:
    """A layer that is made before an app asks for it."""
    return {
        "bake_id": bake.bake_id,
        "kind": bake.kind,
        "template": bake.template,
        "state": bake.state,
        "message": bake.message,
        "key": bake.key,
    }
