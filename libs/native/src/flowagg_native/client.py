"""The client library that confluent-kafka has loaded, for the parts of ours that work beside it.

The clients are confluent-kafka's as ever, with their callbacks, errors and logs; only records take another way. Ours
learns of a client by a plugin of librdkafka's, which is told of it when it is made.
"""

import ctypes
from typing import Final

import confluent_kafka.cimpl

from flowagg_native.library import PATH, calls

_PLUGINS: Final = "plugin.library.paths"


class ClientRefuses(Exception):
    """The client's library does not let its records be taken, or handed to it."""


def with_plugin(properties: dict[str, object]) -> dict[str, object]:
    """A client's properties, with the plugin; others that they name stay."""
    named = properties.get(_PLUGINS)
    return properties | {_PLUGINS: f"{PATH};{named}" if named else PATH}


def _use_client_library() -> None:
    """Hand the functions of librdkafka to ours, which is not linked to it."""
    client = ctypes.CDLL(confluent_kafka.cimpl.__file__)  # looks at what it is linked to, too
    functions = []
    number = 0
    while (name := calls.intake_function(number)) is not None:
        functions.append(ctypes.cast(getattr(client, name.decode()), ctypes.c_void_p))
        number += 1
    calls.intake_use((ctypes.c_void_p * len(functions))(*functions))


_use_client_library()
