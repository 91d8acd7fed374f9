#!/usr/bin/env bash
# Set up the environment if needed, check the style and types, run the tests.
#
# Usage: run_tests.sh [--cov] [--stack classic|onedl] [--only cls|det|video]
#                     [PYTEST ARGUMENTS]
#
# --cov    also reports which lines the tests ran, in coverage.xml, too
# --stack  with other releases of PyTorch and OpenMMLab, in an environment of
#          their own: the tests alone, once
# --only   with one of mmpretrain, mmdet and mmaction2, likewise
#
# Long tests, and most cases of those that sweep over many networks or configs,
# are left out: run_tests.sh -m nightly runs those.
# Without arguments the numerical tests are run a second time, with the
# kernels of an older processor: no result may depend on how one rounds.

set -euo pipefail

cover=() set_up=() stack='' only=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        --cov)
            cover=(--cov=mutualnet_mm)
            cover+=(--cov-report=term:skip-covered --cov-report=xml)
            ;;
        --stack | --only)
            set_up+=("$1" "${2-}")
            [ "$1" = --only ] && only=${2-} || stack=${2-}
            [ $# -eq 1 ] || shift
            ;;
        *) break ;;
    esac
    shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh ${set_up[@]+"${set_up[@]}"}
venv=.venv${stack:+-$stack}${only:+-$only}
if [ "$venv" = .venv ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy mutualnet_mm mutualnet_mm_command.py
fi
# The tests of a file share what they build, so that files stay whole.
run=("$venv/bin/python" -m pytest -n auto --maxprocesses 8 --dist loadfile)
"${run[@]}" ${cover[@]+"${cover[@]}"} "$@"
if [ "$venv,$#" = .venv,0 ]; then
    export ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1
    "${run[@]}" -m 'not subprocess and not nightly' --ignore-glob='*/test_every_*backbone.py' \
        tests/test_slimmable tests/test_models/test_backbones \
        tests/test_models/test_{classifier_runs,classifier_recipes}.py \
        tests/test_models/test_{gradients,mutual,mutual_layers}.py \
        tests/test_models/test_{one_step,recognizers,static}.py \
        tests/test_engine/test_calibration.py
fi
