"""Where a search keeps what it has proposed. In the library in memory; the service has a database for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


class Studies:
    """A study in memory: a search that begins again proposes again, and the same."""

    @contextmanager
    def open(self) -> Iterator[optuna.Study]:
        """The job's study, with what earlier attempts have put into it."""
        yield self._study(None, None)

    def _study(self, storage: optuna.storages.BaseStorage | None, name: str | None) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
