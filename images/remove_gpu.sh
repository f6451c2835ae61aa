#!/bin/sh
# Takes out of /opt/venv what only a GPU or a compiler needs; fails where torch itself has CUDA.
set -eu
cd /opt/venv/lib/python3*/site-packages
/opt/venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda and "torch has CUDA: set CPU_INDEX")'
rm -rf torch/include bitsandbytes/libbitsandbytes_cuda* bitsandbytes/libbitsandbytes_rocm* \
       bitsandbytes/libbitsandbytes_xpu*
find torch/bin -type f -not -name torch_shm_manager -delete
