#!/bin/sh
# Prints the path of uv. Where there is none, installs the pinned version for this project alone,
# under the user's cache directory, also where the system's Python is externally managed.
set -eu

version=0.13.9
directory="${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flow-aggregator/uv-$version"
say() { printf '%s\n' "$*" >&2; }

if command -v uv >/dev/null 2>&1; then
    command -v uv
    exit 0
fi
if [ -x "$directory/bin/uv" ]; then
    printf '%s\n' "$directory/bin/uv"
    exit 0
fi

python=
for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "FlowAggregator needs Python 3.11 or newer, and found none: install one (apt-get install python3-venv, brew install python)."
    exit 1
fi

say "Installing uv $version into $directory (this project's package manager; nothing else is changed) ..."
mkdir -p "$directory"
if "$python" -m venv "$directory" >/dev/null 2>&1 && "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$version"; then
    :
elif "$python" -m pip --version >/dev/null 2>&1 && "$python" -m pip install --quiet --disable-pip-version-check --target "$directory/lib" "uv==$version"; then
    # --target leaves an externally managed Python as it is.
    mkdir -p "$directory/bin"
    ln -sf ../lib/bin/uv "$directory/bin/uv"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "This Python has neither venv nor pip: installing Debian's python3-venv ..."
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    rm -rf "$directory"
    /usr/bin/python3 -m venv "$directory"
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$version"
else
    rm -rf "$directory"
    say "uv could not be installed: this Python has neither venv nor pip. Do one of:"
    say "  sudo apt-get install python3-venv      (Debian, Ubuntu), then the same make again"
    say "  install uv yourself and put it on the PATH: https://docs.astral.sh/uv/"
    exit 1
fi
[ -x "$directory/bin/uv" ] || { say "uv was installed but $directory/bin/uv is not there."; exit 1; }
printf '%s\n' "$directory/bin/uv"
