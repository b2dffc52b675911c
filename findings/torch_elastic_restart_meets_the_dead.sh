#!/usr/bin/env bash
# PyTorch 2.14.1: after a restart by torchrun, gloo may connect to the processes of the attempt before.
#
# torchrun's c10d rendezvous keeps one TCPStore for all attempts, and the workers' keys in it bear no attempt (torch's
# env:// rendezvous says "We create a new TCPStore for every retry"). A process that is early reads the address of the
# peer that was killed, and fails; the restart is lost. Here process 1 of attempt 0 is killed, and in attempt 1 process
# 0 comes 10 seconds late:
#
#     RuntimeError: Gloo connectFullMesh failed with [...] Connection refused
#
# Which process is early is chance, also over several machines (pytorch issue 167288 has NCCL's form of it, 135712 says
# why; TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 avoids it). A PrefixStore with a name of the attempt is right, which
# all processes must agree on: TORCHELASTIC_RESTART_COUNT differs between the agents of several machines. Seen on Linux,
# Python 3.11. Exits 0 if that is still so, 1 if the processes of attempt 1 meet. The install is about 6 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/worker.py" <<'PYTHON'
import os
import signal
import time

import torch.distributed as dist

attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
if attempt == 1 and rank == 0:
    time.sleep(10)
dist.init_process_group("gloo")
dist.barrier()
if attempt == 0:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
print("the processes of attempt 1 meet", flush=True)
dist.destroy_process_group()
PYTHON
timeout 300 "$folder/env/bin/python" -m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 1 \
    "$folder/worker.py" > "$folder/log" 2>&1 || true
if grep -q "the processes of attempt 1 meet" "$folder/log"; then
    echo "2.14.1: the processes of attempt 1 meet"
    exit 1
fi
grep "RuntimeError: .*Connection refused" "$folder/log"
