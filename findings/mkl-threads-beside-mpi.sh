#!/usr/bin/env bash
# MKL, and with it libtorch, computes with one thread as soon as Open MPI's or Intel MPI's number of local ranks stands in the environment.
#
# Found: with OMPI_COMM_WORLD_LOCAL_SIZE or MPI_LOCALNRANKS set, MKL_Get_Max_Threads is 1 on two processors, where it is 2 without. One rank (=1) does it
#   as well as two; no MPI has to be there, and no MPI library is loaded. SLURM_NTASKS and PMI_SIZE do nothing. MKL_NUM_THREADS and
#   OMP_NUM_THREADS win over it.
# Versions: mkl 2025.3.0 (Linux, x86-64; two virtual processors).
# Date: 2026-12-01.
# Guess: a library's number of threads is that of the processors which the process may use, or what OMP_NUM_THREADS says; mpirun -n 1 is as fast as
#   no mpirun.
# Seen: while training was spread over MPI's ranks; `sam-mix` sets the number itself.
#
# Installs mkl in a temporary folder and asks it in environments that differ in one variable. Fails if the variables have no effect, or others have.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check mkl==2025.3.0
cat > "$work/threads.py" <<'PY'
import ctypes, glob, sys
print(ctypes.CDLL(glob.glob(sys.prefix + "/lib/libmkl_rt.so*")[0]).MKL_Get_Max_Threads())
PY
threads() { env -u MKL_NUM_THREADS -u OMP_NUM_THREADS "$@" "$work/venv/bin/python" "$work/threads.py"; }
plain=$(threads)
echo "without: $plain"
if [ "$plain" -lt 2 ]; then
    echo "this needs a machine with at least two processors"
    exit 1
fi
for variable in OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_LOCAL_SIZE=2 MPI_LOCALNRANKS=1 MPI_LOCALNRANKS=2; do
    found=$(threads "$variable")
    echo "$variable: $found"
    [ "$found" -lt "$plain" ] || { echo "it has no effect any more"; exit 1; }
done
for variable in SLURM_NTASKS=2 PMI_SIZE=2; do
    found=$(threads "$variable")
    echo "$variable: $found"
    [ "$found" -eq "$plain" ] || { echo "it has an effect now"; exit 1; }
done
found=$(threads OMPI_COMM_WORLD_LOCAL_SIZE=2 OMP_NUM_THREADS="$plain")
echo "OMPI_COMM_WORLD_LOCAL_SIZE=2 OMP_NUM_THREADS=$plain: $found"
[ "$found" -eq "$plain" ]
