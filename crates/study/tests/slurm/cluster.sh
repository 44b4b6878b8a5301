#!/bin/sh
# A real SLURM of one node on the loopback, in a folder of its own: `cluster.sh start DIR`, `cluster.sh stop DIR`.
# Then SLURM_CONF=DIR/slurm.conf makes sbatch, squeue, scontrol and scancel speak to it. Debian and Ubuntu:
# apt-get install --no-install-recommends slurm-wlm
set -eu
here=$(cd "$(dirname "$0")" && pwd)
verb=$1
mkdir -p "$2"
state=$(cd "$2" && pwd)
export SLURM_CONF="$state/slurm.conf" PATH="$PATH:/usr/sbin:/sbin"

stop() {
    for daemon in slurmd slurmctld; do
        pid=$(cat "$state/$daemon.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || continue
        # They save their state first.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 1
        done
    done
}

start() {
    mkdir -p "$state/control" "$state/node"
    # Ports that no other such cluster is likely to have.
    port=${SAM_MIX_SLURM_PORT:-$((20000 + $$ % 10000 * 2))}
    memory=$(awk '/MemTotal/ { print int($2 / 2048) }' /proc/meminfo)
    sed -e "s|@STATE@|$state|; s|@USER@|$(id -un)|; s|@CONTROL@|$port|; s|@NODE@|$((port + 1))|" \
        -e "s|@CPUS@|$(nproc)|; s|@MEMORY@|$memory|" "$here/slurm.conf.in" > "$SLURM_CONF"
    slurmctld -f "$SLURM_CONF"
    slurmd -N localhost -f "$SLURM_CONF"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
            return
        fi
        sleep 1
    done
    echo "the node did not come up within 20 s: see $state/slurmctld.log and $state/slurmd.log" >&2
    stop
    exit 1
}

case $verb in
start) start ;;
stop) stop ;;
*) echo "cluster.sh start|stop DIR" >&2; exit 2 ;;
esac
