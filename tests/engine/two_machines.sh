#!/usr/bin/env bash
# Two "machines": network and host name of their own, joined by a link, 10.77.0.1 and 10.77.0.2.
#
#     unshare -Urnum bash two_machines.sh COMMAND0 COMMAND1
#
# Each command is run by bash on its machine, its output goes to standard output and error. The last line is the exit
# statuses. $HOSTS is a file to stand for /etc/hosts; without it no name is known. Status 3: there can be no such
# machines here.
set -uo pipefail
LINK=link0
[ -z "${HOSTS:-}" ] || mount --bind "$HOSTS" /etc/hosts || exit 3
hostname machine0 && ip link set lo up || exit 3
unshare -nu sleep 3600 &
other=$!
trap 'kill "$other"' EXIT
until [ "$(readlink "/proc/$other/ns/net")" != "$(readlink /proc/self/ns/net)" ] && [ -n "$(readlink "/proc/$other/ns/net")" ]; do
    kill -0 "$other" 2>/dev/null || exit 3
    sleep 0.05
done
on_other() { nsenter --target "$other" --net --uts "$@"; }
ip link add "$LINK" type veth peer name "$LINK" netns "$other" || exit 3
ip address add 10.77.0.1/24 dev "$LINK" && ip link set "$LINK" up || exit 3
on_other hostname machine1 && on_other ip link set lo up || exit 3
on_other ip address add 10.77.0.2/24 dev "$LINK" && on_other ip link set "$LINK" up || exit 3
bash -c "$1" &
first=$!
on_other bash -c "$2" &
second=$!
wait "$first"; status=$?
wait "$second"
echo "$status $?"
