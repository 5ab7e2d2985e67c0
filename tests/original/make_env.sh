#!/usr/bin/env bash
# Build the environment of the original Python framework, for interoperability tests.
#
#   usage: make_env.sh PYTHON FOLDER
#
# The framework is LGPL and stays in its own environment: nothing of it is part of this package. Versions are pinned
# to those it ran with: msgpack from 1.0 on has other defaults and breaks the protocol, tornado 5 has another loop.
# A half-built folder never looks finished: the stamp is the last thing written.
set -euo pipefail

python=$1
folder=$2
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$folder"
"$python" -m venv "$folder"

export PYTHONPATH=$here            # sitecustomize.py, for the builds as well as for the runs
export TORNADO_EXTENSION=0         # without a compiler tornado needs no speed-ups

pip() { "$folder/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

pip install 'setuptools<70' wheel
pip install --no-build-isolation 'tornado==4.5.3' 'msgpack==0.6.2' 'six==1.16.0'
pip install --no-build-isolation --no-deps 'cocaine==0.12.14.5'

"$folder/bin/python" -c 'import cocaine.services, cocaine.worker'
touch "$folder/ready"
