#!/usr/bin/env bash
# Set up the environment if needed, check the style and types, run the tests.
#
# Usage: run_tests.sh [PYTEST ARGUMENTS]

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy mutualnet_mm
# The tests of a file share what they build, so that files stay whole.
exec .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
