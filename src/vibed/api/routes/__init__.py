"""The API's routes, one module a resource."""

from vibed.api.routes import apps, asking, deploys, domains, keys, layers, ops, sources, told, unbuilt

ALL = (deploys, apps, sources, asking, told, domains, keys, layers, ops, unbuilt)
