#!/usr/bin/env bash
# A training that survives the death of its processes: torchrun starts all of them again, and they go on from the last checkpoint.
#
# one host, all its GPUs:   pretrain/cluster/elastic.sh --config-file ... data.root=/data/imagenet output=runs/r50
# two hosts, on each:       NODES=2 HOST=node1:29400 pretrain/cluster/elastic.sh --config-file ... (the same line; HOST is one of the two)
#
# PROCESSES  processes a host (default: its GPUs)      RESTARTS  restarts before it gives up (default 3)
# A restarted run repeats the steps since the last checkpoint (train.save_every_steps, 1000) and ends with the bits of one that was never
# disturbed. The number of processes stays what it was: other numbers would draw other λ and pairs, and are refused by the checkpoint.
# torchrun gives processes 30 seconds to end on Ctrl-C or SIGTERM; to be sure of a checkpoint on a slower disk use slurm.sh's way.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
NODES=${NODES:-1}
if [ "$NODES" -gt 1 ]; then
  meeting=(--rdzv-backend=c10d --rdzv-endpoint="${HOST:?give HOST=name:port of one of the hosts}" --rdzv-id="${JOB:-automix}")
else
  meeting=(--standalone)
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# By default a restart meets in the store of the start before, where gloo finds the addresses of dead processes and waits for them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "$PYTHON" -m torch.distributed.run --nnodes="$NODES" --nproc-per-node="${PROCESSES:-gpu}" --max-restarts="${RESTARTS:-3}" \
  "${meeting[@]}" -m automix_transfer pretrain "$@" --resume
