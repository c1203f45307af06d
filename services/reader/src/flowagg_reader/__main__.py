"""flowagg-reader: the process."""

import sys
from collections.abc import Sequence

from confluent_kafka import KafkaException
from flowagg.election_thread import elector
from flowagg.errors import FlowaggError
from flowagg.service import serve, start

from flowagg_reader.app import create_app
from flowagg_reader.log import Log
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve GET /flows until SIGTERM or SIGINT."""
    settings = start("reader", ReaderSettings, "Serves the totals of a view over HTTP.", arguments)
    try:
        serve(create_app(settings, Store(settings), Log(settings)), settings, elector(settings))
    except (FlowaggError, KafkaException) as error:
        sys.exit(f"flowagg-reader: {error}")


if __name__ == "__main__":
    main()
