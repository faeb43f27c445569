"""The folder of a search: what it is of, and where its study lies.

``search.yaml`` (ranges and settings), ``search.db`` (the Optuna study, where no other storage is
named), ``cells/t<number>/`` (a run folder for each trial), ``report.json`` (the best trial on the
test split). Whoever trains a trial holds the lock in ``.claims/t<number>``.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwd import layers
from qwd.errors import InputError, UsageError
from qwd.files import write_text
from qwd.sweep.claims import alone
from qwd.sweep.layout import SWEEPS, safe
from qwd.sweep.opening import refuse_existing
from qwd.sweep.search_space import Space, begin, read_space, same

if TYPE_CHECKING:
    from qwd.sweep.search_study import SharedStudy

SEARCH, DATABASE = "search.yaml", "search.db"
OWN, SHARED = "search.db", "another, which --storage names"


@dataclass(frozen=True, kw_only=True)
class SearchFolder:
    """A search in its folder, which may be about to be written."""

    path: Path
    space: Space
    mark: str
    """tells the trials in this folder from those of other ones that share the study"""
    shared: bool
    """whether its study is in a storage that was named"""

    def storage(self, given: str | None) -> str:
        """The URL of the study's storage; UsageError where it has to be named, or must not be."""
        if self.shared and given is None:
            raise UsageError(
                f"the search in {self.path} is in a storage of its own: name it with --storage"
            )
        if not self.shared and given is not None:
            raise UsageError(
                f"--storage: the search in {self.path} has its own {DATABASE}; leave it out, or "
                "choose another --out"
            )
        return given or f"sqlite:///{self.path.resolve() / DATABASE}"

    def study(self, storage: str, trials: int) -> "SharedStudy":
        """The study, made where there is none; see `SharedStudy`."""
        from qwd.sweep.search_study import SharedStudy

        name = self.path.resolve().name
        return SharedStudy(storage, name, self.path, self.mark, self.space, trials)

    def write(self) -> None:
        """Begin the folder."""
        import yaml

        content = {
            **self.space.to_dict(),
            "mark": self.mark,
            "storage": SHARED if self.shared else OWN,
        }
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
        with alone(self.path):
            write_text(self.path / SEARCH, text)


def is_search(folder: Path) -> bool:
    """Whether ``folder`` is that of a search."""
    return (folder / SEARCH).is_file()


def opened(folder: Path) -> SearchFolder:
    """The search in ``folder``; InputError, naming the file, where it cannot be read."""
    file = folder / SEARCH
    content = layers.load_yaml(file)
    try:
        mark, storage = content.pop("mark"), content.pop("storage")
        space = begin(read_space({}, {}, content))
    except KeyError as error:
        raise InputError(f"{file}: it has no {error.args[0]}") from error
    except UsageError as error:
        raise InputError(f"{file}: {error}") from error
    return SearchFolder(path=folder, space=space, mark=str(mark), shared=storage != OWN)


def open_search(
    asked: Mapping[str, Any], out: str | Path | None, resume: bool, storage: str | None
) -> SearchFolder:
    """The search that is asked for; nothing is written yet.

    ``out`` is the folder (default ``sweeps/<model>-<data>-search``). Raises UsageError where it
    exists and is not resumed, is no search and is, or has other settings.
    """
    folder = Path(out) if out is not None else default_folder(begin(asked))
    if not resume:
        refuse_existing(folder)
        return SearchFolder(
            path=folder,
            space=begin(asked),
            mark=secrets.token_hex(8),
            shared=storage is not None,
        )
    if not is_search(folder):
        raise UsageError(f"--resume: {folder} is no search; leave --resume out to start it")
    stored = opened(folder)
    return SearchFolder(
        path=folder,
        space=same(stored.space, asked, str(folder)),
        mark=stored.mark,
        shared=stored.shared,
    )


def default_folder(space: Space) -> Path:
    """``sweeps/<model>-<data>-search``, with ``-qat`` where it is that."""
    config = space.config(space.lowest)
    data = "images" if config.data.startswith("imagefolder:") else config.data
    parts = [config.model, data, *(["qat"] if config.qat else []), "search"]
    return SWEEPS / safe("-".join(parts))
