#!/bin/bash
# Two hosts on one machine: network namespaces with an address and a host name of their own, joined by a virtual cable.
#
#     sudo PYTHON=.venv/bin/python benchmarks/two_hosts.sh [--mpich] COMMAND ...
#
# runs `COMMAND ...` as two ranks, one on each host: `benchmarks/two_hosts.sh .venv/bin/nucleate train ...`. Ranks of the
# first host are started, and start those of the second, through `ip netns exec` in the place of ssh. Bytes over the cable
# are printed at the end: all messages of Open MPI go there by TCP; MPICH finds shared memory between the two hosts, so
# its launcher is tried, not its messages. Needs root, and Open MPI beside $PYTHON, with --mpich MPICH. CABLE holds what
# `tc qdisc add dev DEVICE root` is given, say "netem rate 1gbit delay 50us" (not tried); RANKS the ranks (2).
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "two_hosts.sh makes network namespaces: run it as root." >&2; exit 2; }
implementation=openmpi
[ "${1:-}" = --mpich ] && { implementation=mpich; shift; }
bin=$(dirname "$(realpath -s "${PYTHON:-.venv/bin/python}")")
scratch=$(mktemp -d)
id=$$
one=one$id two=two$id
cleanup() {
    ip netns del "$one" 2>/dev/null || true
    ip netns del "$two" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT

ip netns add "$one"
ip netns add "$two"
ip link add cable netns "$one" type veth peer name cable netns "$two"
for host in "$one 10.77.0.1" "$two 10.77.0.2"; do
    set_up=($host)
    ip -n "${set_up[0]}" addr add "${set_up[1]}/24" dev cable
    ip -n "${set_up[0]}" link set lo up
    ip -n "${set_up[0]}" link set cable up
    [ -z "${CABLE:-}" ] || ip netns exec "${set_up[0]}" tc qdisc add dev cable root $CABLE
done

# What ssh is to a cluster: AGENT [options] ADDRESS COMMAND.
cat > "$scratch/agent" <<AGENT
#!/bin/bash
while [ "\${1#-}" != "\$1" ]; do shift; done
case "\$1" in 10.77.0.1) host=$one ;; 10.77.0.2) host=$two ;; *) echo "no host \$1" >&2; exit 255 ;; esac
shift
exec ip netns exec \$host unshare --uts bash -c 'hostname "\$0"; exec bash -c "\$*"' \$host "\$@"
AGENT
chmod +x "$scratch/agent"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export PRTE_MCA_plm_ssh_agent=$scratch/agent PRTE_MCA_prte_if_include=10.77.0.0/24
export OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_btl=tcp,self OMPI_MCA_coll=^han
export PATH=$bin:$PATH
ranks=${RANKS:-2}
each=$(((ranks + 1) / 2))
if [ $implementation = mpich ]; then
    launcher=("$bin/mpiexec" -launcher ssh -launcher-exec "$scratch/agent" -hosts "10.77.0.1:$each,10.77.0.2:$each" -n "$ranks")
else
    launcher=("$bin/mpirun" --host "10.77.0.1:$each,10.77.0.2:$each" --map-by slot:oversubscribe --bind-to none
        -x PYTHONPATH -x OMP_NUM_THREADS -n "$ranks")
fi
status=0
"$scratch/agent" 10.77.0.1 "$(printf '%q ' "${launcher[@]}" "$@")" || status=$?
bytes() { ip netns exec "$one" cat /sys/class/net/cable/statistics/"$1"; }
echo "exit code $status; over the cable $(bytes tx_bytes) bytes went from the first host, $(bytes rx_bytes) from the second" >&2
exit $status
