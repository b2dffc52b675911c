#!/usr/bin/env bash
#SBATCH --job-name=align-detr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# One launcher per node. Slurm sends SIGUSR1 to them 300 seconds before the time limit: the run finishes its step, saves
# and ends with status 75, and the job is put into the queue again. A node that fails is Slurm's to requeue (--requeue).
#
#     sbatch docs/recipes/slurm.sh --config-file dino/dino_r50_4scale_12ep.py train.output_dir=/shared/dino
set -uo pipefail

host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
export HOST_AND_PORT="$host:$port"

srun --kill-on-bad-exit=0 bash -c 'exec align-detr train --num-gpus "$SLURM_GPUS_ON_NODE" \
    --num-machines "$SLURM_NNODES" --machine-rank "$SLURM_NODEID" --dist-url "tcp://$HOST_AND_PORT" \
    --resume "$@"' align-detr "$@"
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
