"""The build that a data set on the Hub holds, and what becomes of it when another one is pushed."""

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
    """The build that a repository holds, and the subsets of it that a push replaces; the others stay.

    Attributes:
        repository: as it was looked at; None where there is none, or it was not looked at.
        manifest: of the build; one without subsets where there is no build.
        replaced: keys of the subsets that are replaced, whether the repository holds them or not.
    """

    repository: Repository | None
    manifest: dict[str, Any]
    replaced: Collection[str]

    @property
    def kept(self) -> dict[str, Any]:
        """What the manifest says of the subsets that stay, by key."""
        return {key: entry for key, entry in self.manifest["subsets"].items() if key not in self.replaced}

    def check_beside(self, pushed: dict[str, Any]) -> None:
        """Raise if what is pushed cannot stand beside what stays, or has fewer configs than what it replaces.

        Args:
            pushed: manifest with the `max_side` that the images are going to have.
        """
        if self.repository is None:
            return
        url, here, there = self.repository.upload.url, pushed["max_side"], self.manifest.get("max_side")
        if self.kept and there != here:
            raise MedfmcError(
                f"{url} holds {', '.join(sorted(self.kept))} with images of at most {there or 'any number of'} pixels a "
                f"side, and this push has {here or 'any number of'}; give the same --max-side, another --repo-id, or --prune to drop them."
            )
        lost = [name for name in self._replaced_configs() if name not in pushed["configs"]]
        if lost:
            raise MedfmcError(
                f"{url} has {len(lost)} configs that this build lacks, such as {lost[0]}; build with the lists that they "
                "are made from, or give --prune to remove them."
            )

    def merged(self, pushed: dict[str, Any]) -> dict[str, Any]:
        """The manifest of what the repository will hold: what is pushed, and what stays."""
        if not self.kept:
            return pushed
        order = list(SUBSETS)
        subsets = self.kept | pushed["subsets"]
        configs = {name: splits for name, splits in self.manifest["configs"].items() if _subset_of(name) in self.kept} | pushed["configs"]
        return pushed | {
            "subsets": dict(sorted(subsets.items(), key=lambda item: order.index(item[0]))),
            "configs": dict(sorted(configs.items(), key=lambda item: order.index(_subset_of(item[0])))),
        }

    def stale(self, named: Collection[str]) -> list[str]:
        """The files of replaced subsets that are not among `named`; never a file that the manifest does not name."""
        if self.repository is None:
            return []
        return sorted(files_named(self._replaced_configs()) & set(self.repository.paths) - set(named))

    def card(self) -> str:
        """Its README.md, for the parts that speak of what stays; empty where nothing does."""
        if self.repository is None or not self.kept or "README.md" not in self.repository.paths:
            return ""
        return _text_of(self.repository, "README.md")

    def _replaced_configs(self) -> dict[str, Any]:
        return {name: splits for name, splits in self.manifest["configs"].items() if _subset_of(name) in self.replaced}


def published_build(repository: Repository | None, replaced: Collection[str], schema: int) -> PublishedBuild:
    """Read what a repository holds.

    Args:
        repository: as it was looked at; None where there is none.
        replaced: keys of the subsets that a push replaces.
        schema: the layout of manifests that this version knows.

    Raises:
        MedfmcError: its build is of another layout, or cannot be read.
    """
    if repository is None or MANIFEST not in repository.paths:
        return PublishedBuild(repository, {"subsets": {}, "configs": {}}, replaced)
    manifest = json.loads(_text_of(repository, MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("schema") != schema:
        raise MedfmcError(f"{repository.upload.url} holds a build of another layout; give another --repo-id, or remove it there first.")
    return PublishedBuild(repository, manifest, replaced)


def files_named(configs: dict[str, Any]) -> set[str]:
    """The Parquet files that the configs of a manifest name."""
    return {file for splits in configs.values() for split in splits.values() for file in split["files"]}


def _subset_of(config: str) -> str:
    return ConfigName.parse(config).subset


def _text_of(repository: Repository, path: str) -> str:
    """A text file of a repository, as it is at the commit that was looked at."""
    from huggingface_hub import hf_hub_download

    upload = repository.upload
    with explained(upload.repo_id, reading=True):
        found = hf_hub_download(upload.repo_id, path, repo_type=upload.kind, revision=repository.sha)
    return Path(found).read_text(encoding="utf-8")
