"""Cells of tables run in this process, where a test's changes hold."""

import pytest


@pytest.fixture
def cells_here(monkeypatch):
    """Return a function that lets a table's module run its cells here; or run none, if told so."""

    def let(module, *, none: bool = False) -> None:
        def run_cells(cells, workers, console, on_finished):
            for cell in [cell for cell in cells if not cell.finished]:
                assert not none, f"{cell.name} is not finished"
                cell.run()
                on_finished()

        monkeypatch.setattr(module, "run_cells", run_cells)

    return let
