#!/usr/bin/env bash
# From a fresh machine to a trained, evaluated, slimmable network: sets up
# .venv, makes a small data set, trains, prints a table, saves the results
# under work_dirs.
#
# Usage: quickstart.sh [--task det|cls] [ARGUMENTS OF tools/quickstart.py]
#
# det: a Mask R-CNN, the default; cls: a classifier, in two minutes and
# without the build of mmcv.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for argument in "$@"; do
    case $argument in
        -h | --help)
            # All options, where there is an environment to ask.
            "$root/.venv/bin/python" -W ignore "$root/tools/quickstart.py" \
                --help 2>/dev/null ||
                sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
    esac
done
kind=()
case " $* " in
    *' --task cls '* | *' --task=cls '*) kind=(--lite) ;;
esac
bash "$root/tools/setup_env.sh" ${kind[@]+"${kind[@]}"}
exec "$root/.venv/bin/python" -W ignore "$root/tools/quickstart.py" "$@"
