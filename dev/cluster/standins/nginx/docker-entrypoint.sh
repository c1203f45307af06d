#!/bin/sh
# The upstream image's entrypoint prepares templates and the like first; nothing here uses them.
exec "$@"
