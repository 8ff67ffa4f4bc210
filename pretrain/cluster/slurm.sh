#!/usr/bin/env bash
#SBATCH --job-name=automix
#SBATCH --nodes=2                  # 16 GPUs; train.batch_size stays the recipe's, over all of them
#SBATCH --ntasks-per-node=8        # one task a GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12         # loader workers (data.workers) and one for the training
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180          # three minutes before the time is up (or at preemption) every task is asked to stop: it finishes its
#SBATCH --requeue                  #   step, writes a checkpoint, and the job is queued again
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
#
# A training by SLURM, from the first step to the last over as many jobs as it takes. The same line for the first and every later start:
#   sbatch pretrain/cluster/slurm.sh --config-file imagenet_r50_automix_100e data.root=/data/imagenet output=runs/r50
# Arguments are those of automix-transfer pretrain. Seeds of Table 2: --trials 3. Another interpreter: PYTHON=... sbatch ...
# Each task joins the others by RANK and WORLD_SIZE as under torchrun; srun starts them itself, so that its signals reach them directly
# (torchrun would end its workers after 30 seconds, which may be less than a checkpoint on a slow disk needs).
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/../..}"

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))
export OMP_NUM_THREADS=1
export PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}

# --kill-on-bad-exit: when one task dies, the others wait for it in a collective for ever.
code=0
srun --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
  exec "$PYTHON" -m automix_transfer pretrain "$@" --resume' train "$@" || code=$?

# 143: asked to stop, and the checkpoint is written. Bad input is 2 and would fail again; anything else is looked at by a person.
if [ "$code" -eq 143 ]; then
  echo "stopped by SLURM with a checkpoint; queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
