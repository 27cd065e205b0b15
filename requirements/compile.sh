#!/usr/bin/env bash
# Re-make the locks of requirements/ from pyproject.toml (needs `uv`): the version and every file's hash of each package, and
# no registry's address. Universal: one file serves Python 3.11 to 3.13.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  out=requirements/$1.txt
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
    --no-emit-find-links --override requirements/overrides.txt "$@" pyproject.toml requirements/setup.in --output-file "$out"
}
lock demo-cpu --extra cpu
lock demo-openvino --extra openvino
lock demo-cuda --extra cuda
lock test --extra gpu --extra dev
