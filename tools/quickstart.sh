#!/usr/bin/env bash
# From a fresh machine to a trained, evaluated, slimmable Mask R-CNN: sets up
# .venv, makes a small data set, trains, prints a table, saves curve and
# picture under work_dirs/quickstart. Arguments go to tools/quickstart.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup_env.sh"
exec "$root/.venv/bin/python" -W ignore "$root/tools/quickstart.py" "$@"
