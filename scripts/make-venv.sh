#!/bin/sh
# Makes the virtual environment, with a pip that knows dependency groups.
#
#   scripts/make-venv.sh FOLDER [PYTHON]
set -eu

folder=$1
python=${2:-python3}
here=$(dirname "$0")

if ! command -v "$python" >/dev/null; then
    echo "error: there is no $python; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" -V) is too old, 3.11 or newer is needed; name another: make PYTHON=python3.12" >&2
    exit 1
fi
# Debian splits venv from Python. Looking first leaves no half-made folder behind.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$here/apt-install.sh" 'the virtual environment' python3-venv
fi

# One that works is kept, whoever made it; a half-made one, as an interrupted run leaves it, is made again.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making $folder (once; about half a minute with what is installed into it)" >&2
    "$python" -m venv --clear "$folder"
fi
# Dependency groups came with pip 25.1; Debian 12 bundles 23.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
