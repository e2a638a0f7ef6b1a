#!/usr/bin/env bash
# Train as a Slurm job: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS change the request.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,3p' "$0"; exit 2; fi
partition=$1; job=$2; config=$3; shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
# SRUN_ARGS is split into words on purpose
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job" --gres=gpu:"$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
