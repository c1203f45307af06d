"""flowagg-writer: the process."""

import sys
from collections.abc import Sequence

from confluent_kafka import KafkaException
from flowagg.election_thread import elector
from flowagg.errors import FlowaggError
from flowagg.service import serve, start

from flowagg_writer.app import create_app
from flowagg_writer.log import Log
from flowagg_writer.settings import WriterSettings


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve POST /flows until SIGTERM or SIGINT."""
    settings = start(
        "writer",
        WriterSettings,
        "Takes flows over HTTP and appends them to the log in Kafka.",
        arguments,
    )
    try:
        serve(create_app(settings, Log(settings)), settings, elector(settings))
    except (FlowaggError, KafkaException) as error:
        sys.exit(f"flowagg-writer: {error}")


if __name__ == "__main__":
    main()
