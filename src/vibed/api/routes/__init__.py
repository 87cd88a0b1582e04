"""The API's routes, one module a resource."""

from vibed.api.routes import apps, asking, deploys, domains, keys, layers, moving, ops, sources, told, unbuilt

ALL = (deploys, apps, sources, asking, told, domains, keys, layers, moving, ops, unbuilt)
