#!/bin/bash
# sbatch examples/slurm.sh recipes/mine.yaml          (8 nodes of 8 GPUs; set train.parallel there)
#
# Each node runs torchrun once, and they meet at the first node. Two minutes before the time limit,
# and when it is preempted, the job gets SIGTERM: the run saves a checkpoint and ends, and the job is
# queued again (torchrun allows 30 s for the save; --shutdown-timeout, for more). It then goes on with the same stream of conversations, on as many ranks as there are.
#SBATCH --job-name=vtb
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" \
  --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$first:29500" \
  -m voicetextblender.cli train "$@" &
ranks=$!

asked_to_stop=false
trap 'asked_to_stop=true; kill -TERM "$ranks"' TERM
wait "$ranks"
code=$?
if $asked_to_stop; then
  wait "$ranks" # the first wait ended with the signal; this one ends with the ranks
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
