#!/usr/bin/env bash
# Set up the environment if needed, check the style and types, run the tests.
#
# Usage: run_tests.sh [--cov] [PYTEST ARGUMENTS]
#
# --cov  also reports which lines the tests ran, in coverage.xml, too
#
# Long tests, and most cases of those that sweep over many networks or configs,
# are left out: run_tests.sh -m nightly runs those.
# Without arguments the numerical tests are run a second time, with the
# kernels of an older processor: no result may depend on how one rounds.

set -euo pipefail

case ${1-} in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
esac

cover=()
if [ "${1-}" = --cov ]; then
    shift
    cover=(--cov=mutualnet_mm --cov-report=term:skip-covered --cov-report=xml)
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy mutualnet_mm mutualnet_mm_command.py
# The tests of a file share what they build, so that files stay whole.
run=(.venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile)
"${run[@]}" ${cover[@]+"${cover[@]}"} "$@"
if [ $# -eq 0 ]; then
    export ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1
    "${run[@]}" -m 'not subprocess and not nightly' --ignore-glob='*/test_every_*backbone.py' \
        tests/test_slimmable tests/test_models/test_backbones \
        tests/test_models/test_{classifier_runs,classifier_recipes}.py \
        tests/test_models/test_{gradients,mutual,mutual_layers}.py \
        tests/test_models/test_{one_step,recognizers,static}.py \
        tests/test_engine/test_calibration.py
fi
