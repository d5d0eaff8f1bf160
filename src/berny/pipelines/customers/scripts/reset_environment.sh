#!/bin/sh
# Starts this pipeline's Spark jobs again from the first record of their topics: stops the stages of this node, moves both
# directories of HDFS to the trash, removes the checkpoints, and starts the stages. Topics, tables and other pipelines are left
# alone. If it is interrupted, the stages stay stopped, over a reboot as well, until it has been run again.
set -eu

pipeline=customers
# In the order in which they are started; the timer is the third.
stages="kafka-hdfs db compact producer"
directories="/user/maria_dev/customers_usa /user/maria_dev/customers_alerts"
checkpoints="/data/customers/checkpoints/checkpoint_customers_hdfs /data/customers/checkpoints/checkpoint_customers_db"
conf=${BERNY_CONF:-/etc/berny}
name=$(basename "$0")

usage="Usage: $name [--yes]
Starts the Spark jobs of $pipeline again from the first record that their topics still have.
Both directories of HDFS are emptied; the trash of $pipeline keeps their files for a day:
$(printf '  %s\n' $directories)
Rows that are older than the topic customers-raw keeps do not come back by themselves."

fail() {
    echo "$name: $1" >&2
    exit "${2:-1}"
}

case "${1:-}" in
    --yes | "") [ $# -le 1 ] || fail "one argument at most; see --help" 2 ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) fail "unknown argument $1; see --help" 2 ;;
esac
[ -d "$conf/berny-$pipeline-kafka-hdfs" ] || fail "this node does not run the stages of $pipeline: run it on master" 2
if [ "${1:-}" != --yes ]; then
    [ -t 0 ] || fail "without a terminal it needs --yes" 2
    echo "$usage"
    printf 'Type the name of the pipeline to go on: '
    read -r typed
    [ "$typed" = "$pipeline" ] || fail "nothing was changed"
fi

again="it is not complete, and the stages are stopped: run it again"
trap 'fail "$again"' INT TERM HUP
hdfs=$(command -v hdfs) || fail "there is no command hdfs" 2
as_pipeline() {
    sudo -u "$pipeline" "$hdfs" dfs "$@" || fail "hdfs dfs $1 failed; $again"
}

echo "stopping the stages"
for stage in $stages; do
    unit=berny-$pipeline-$stage
    # Nothing starts a stage that this file holds down, neither a boot nor site.yml.
    sudo touch "$conf/$unit/stopped"
    [ "$stage" != compact ] || sudo systemctl stop "$unit.timer"
done
for stage in producer compact db kafka-hdfs; do
    sudo systemctl stop "berny-$pipeline-$stage.service" || fail "berny-$pipeline-$stage does not stop; $again"
done

for directory in $directories; do
    echo "emptying $directory"
    as_pipeline -rm -r -f "$directory/*"
done
for checkpoint in $checkpoints; do
    echo "removing $checkpoint"
    as_pipeline -rm -r -f -skipTrash "$checkpoint" "$checkpoint.new"
done

echo "starting the stages"
for stage in $stages; do
    unit=berny-$pipeline-$stage
    sudo rm -f "$conf/$unit/stopped"
    sudo systemctl reset-failed "$unit.service" 2> /dev/null || true
    if [ "$stage" = compact ]; then
        sudo systemctl start "$unit.timer"
    else
        sudo systemctl start "$unit.service"
    fi || fail "$unit does not start: see berny-probe $unit"
done
echo "done: the jobs read their topics from the beginning"
