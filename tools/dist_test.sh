#!/usr/bin/env bash
# Test a checkpoint on several devices of this machine, or of several machines.
#
# Usage: dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS OF tools/test.py]
#
# The arguments and variables are those of OpenMMLab's script. Of several
# machines, each runs the same line with NNODES (how many), NODE_RANK (which
# one, from 0), MASTER_ADDR and PORT (of the first). Two runs on one
# machine need a PORT each; the default is 29500.
# Without a GPU it starts so many processes on the CPU.

set -euo pipefail

case ${1-} in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
esac
if [ $# -lt 3 ]; then
    echo 'usage: dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS]' >&2
    exit 2
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$1
checkpoint=$2
gpus=$3
shift 3
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
