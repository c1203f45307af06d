"""The dashboards, one module each."""

from typing import Final

from flowagg_dashboards.boards import consumers, dependencies, ingest, operator, overview, reads
from flowagg_dashboards.model import Board

BOARDS: Final[tuple[Board, ...]] = (
    overview.BOARD,
    ingest.BOARD,
    consumers.BOARD,
    reads.BOARD,
    operator.BOARD,
    dependencies.BOARD,
)
