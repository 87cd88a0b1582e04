"""The API's routes, one module a resource."""

from vibed.api.routes import apps, asking, deploys, keys, layers, ops, sources, told, unbuilt

ALL = (deploys, apps, sources, asking, told, keys, layers, ops, unbuilt)
