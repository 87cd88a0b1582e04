"""The API's routes, one module a resource."""

from vibed.api.routes import apps, deploys, keys, ops, sources, told, unbuilt

ALL = (deploys, apps, sources, told, keys, ops, unbuilt)
