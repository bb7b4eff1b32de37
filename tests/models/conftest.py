"""A Hub on loopback, from which backbones come."""

from hub_fixtures import backbone, cache, client, hub  # noqa: F401 - fixtures
