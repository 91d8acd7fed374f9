#!/usr/bin/env bash
# Test a checkpoint on a cluster that Slurm runs.
#
# Usage: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT
#     [ARGUMENTS OF tools/test.py]
#
# The arguments and variables are those of OpenMMLab's script: GPUS (in all,
# default 8), GPUS_PER_NODE (default 8), CPUS_PER_TASK (default 5), SRUN_ARGS
# (further options of srun), and MASTER_PORT, where jobs share a machine.

set -euo pipefail

case ${1-} in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
esac
if [ $# -lt 4 ]; then
    echo 'usage: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT' \
        '[ARGUMENTS]' >&2
    exit 2
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
per_node=${GPUS_PER_NODE:-8}
# SRUN_ARGS holds options, and is split at blanks.
# shellcheck disable=SC2086
exec srun -p "$partition" \
    --job-name="$job_name" \
    --gres="gpu:$per_node" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$tools/test.py" "$config" "$checkpoint" \
    --launcher=slurm "$@"
