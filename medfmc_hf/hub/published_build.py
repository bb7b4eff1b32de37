"""The build that a data set on the Hub holds, and how a push changes it."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.loading import MANIFEST
from ..errors import MedfmcError
from ..hub_answers import explained
from ..subsets import SUBSETS, ConfigName
from .repository import Repository


@dataclass(frozen=True)
class PublishedBuild:
    """The build that a repository holds, and the subsets that a push replaces; the others stay.

    Attributes:
        repository: repository as `look` found it; None if there is none, or it was not looked at.
        manifest: manifest of the build; without subsets if there is no build.
        replaced: keys of the subsets that are replaced, whether the repository holds them or not.
    """

    repository: Repository | None
    manifest: dict[str, Any]
    replaced: Collection[str]

    @property
    def remaining(self) -> dict[str, Any]:
        """Manifest entries of the subsets that stay, by key."""
        return {key: entry for key, entry in self.manifest["subsets"].items() if key not in self.replaced}

    def check_beside(self, pushed: dict[str, Any]) -> None:
        """Check that a build can be pushed beside the subsets that stay, and lacks none of the configs that it replaces.

        Args:
            pushed: manifest of the build, with the `max_side` of the images to be sent.

        Raises:
            MedfmcError: the image sizes differ, or configs would be removed.
        """
        if self.repository is None:
            return
        url, here, there = self.repository.upload.url, pushed["max_side"], self.manifest.get("max_side")
        if self.remaining and there != here:
            raise MedfmcError(
                f"{url} holds {', '.join(sorted(self.remaining))} with images of at most {there or 'any number of'} pixels a "
                f"side, and this push has {here or 'any number of'}; give the same --max-side, another --repo-id, or --prune to drop them."
            )
        missing = [name for name in self._replaced_configs() if name not in pushed["configs"]]
        if missing:
            raise MedfmcError(
                f"{url} has {len(missing)} configs that this build lacks, such as {missing[0]}; build with the lists that they "
                "are made from, or give --prune to remove them."
            )

    def merged(self, pushed: dict[str, Any]) -> dict[str, Any]:
        """The manifest after the push: the pushed subsets and those that stay."""
        if not self.remaining:
            return pushed
        order = list(SUBSETS)
        subsets = self.remaining | pushed["subsets"]
        stay = {name: splits for name, splits in self.manifest["configs"].items() if _subset_of(name) in self.remaining}
        configs = stay | pushed["configs"]
        return pushed | {
            "subsets": dict(sorted(subsets.items(), key=lambda item: order.index(item[0]))),
            "configs": dict(sorted(configs.items(), key=lambda item: order.index(_subset_of(item[0])))),
        }

    def stale(self, named: Collection[str]) -> list[str]:
        """The files of replaced subsets that are not in `named`; never a file that the manifest does not list."""
        if self.repository is None:
            return []
        return sorted(files_named(self._replaced_configs()) & set(self.repository.paths) - set(named))

    def card(self) -> str:
        """The published README.md, for its parts about the subsets that stay; empty if none do."""
        if self.repository is None or not self.remaining or "README.md" not in self.repository.paths:
            return ""
        return _text_of(self.repository, "README.md")

    def _replaced_configs(self) -> dict[str, Any]:
        return {name: splits for name, splits in self.manifest["configs"].items() if _subset_of(name) in self.replaced}


def published_build(repository: Repository | None, replaced: Collection[str], schema: int) -> PublishedBuild:
    """Read the build that a repository holds.

    Args:
        repository: repository as `look` found it; None if there is none.
        replaced: keys of the subsets that a push replaces.
        schema: schema of the manifests that this version reads.

    Raises:
        MedfmcError: its build has another layout, or cannot be read.
    """
    if repository is None or MANIFEST not in repository.paths:
        return PublishedBuild(repository, {"subsets": {}, "configs": {}}, replaced)
    manifest = json.loads(_text_of(repository, MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("schema") != schema:
        raise MedfmcError(f"{repository.upload.url} holds a build with another layout; give another --repo-id, or remove it there first.")
    return PublishedBuild(repository, manifest, replaced)


def files_named(configs: dict[str, Any]) -> set[str]:
    """The Parquet files of the configs of a manifest."""
    return {file for splits in configs.values() for split in splits.values() for file in split["files"]}


def _subset_of(config: str) -> str:
    return ConfigName.parse(config).subset


def _text_of(repository: Repository, path: str) -> str:
    """Content of a text file of a repository, at the commit that was looked at."""
    from huggingface_hub import hf_hub_download

    upload = repository.upload
    with explained(upload.repo_id, reading=True):
        found = hf_hub_download(upload.repo_id, path, repo_type=upload.kind, revision=repository.sha)
    return Path(found).read_text(encoding="utf-8")
