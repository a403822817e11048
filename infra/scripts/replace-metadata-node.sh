#!/usr/bin/env bash
# Replaces the machine of one metadata node and keeps its volume and its name: for a new image or a new version of the
# binaries. One node at a time; run it three times, 1 to 3, for all. It refuses to begin, or to call itself done, unless
# every voter answers and has what the leader had applied.
#
#   replace-metadata-node.sh NODE [TERRAFORM_PLAN_ARGUMENT…]
#
# NODE is 1, 2 or 3, the number in the node's name. Run it in the root that made the cluster (environments/aws), with the
# arguments that `terraform plan` takes there (-var-file=…), with `terraform`, `jq` and `carnax` on the path, and with
# CARNAX_ENDPOINT naming one frontend that does not run on that node: docs/deploy.md says how to get one. Safe to repeat.
#
#   CARNAX_REPLACE_DEADLINE   seconds that the node may take to come back (1200)
set -euo pipefail

if [[ $# -lt 1 || ! $1 =~ ^[123]$ ]]; then
  sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
node=$1
shift
deadline=${CARNAX_REPLACE_DEADLINE:-1200}
# A voter that the leader has heard of within this time lives.
heard_millis_max=2000

say() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*" >&2; }
fail() { say "stopped: $*"; exit 1; }

# The cluster as its leader sees it: only the leader knows how far the others are. A frontend asks whichever node it likes, so
# the node that it asks is made the leader if it is not.
status_of_leader() {
  local status answers
  for _ in 1 2 3 4 5; do
    status=$(carnax --output json cluster status) || return 1
    if jq -e '.metadata | .leader != null and .leader == .answered_by' <<<"$status" >/dev/null; then
      printf '%s\n' "$status"
      return 0
    fi
    answers=$(jq -r '.metadata.answered_by // empty' <<<"$status")
    [[ -n $answers ]] || return 1
    carnax cluster transfer-leader --to "$answers" >&2 || return 1
  done
  return 1
}

# Whether all voters that there ought to be answer, and hold the log up to `applied`.
is_whole() {
  local applied=$1
  jq -e --argjson applied "$applied" --argjson heard "$heard_millis_max" '
    .metadata as $m | [$m.nodes[] | select(.role == "voter")] as $voters
    | ($voters | length) >= $m.voters_wanted
      and ($voters | length) >= 3
      and all($voters[]; .node == $m.leader
        or (.last_heard_millis != null and .last_heard_millis <= $heard and .matched != null and .matched >= $applied))
  ' >/dev/null
}

# Waits, for so many seconds, until every voter has what the leader has applied by now.
wait_until_whole() {
  local until=$((SECONDS + $1)) status applied=""
  while ((SECONDS < until)); do
    if status=$(status_of_leader); then
      applied=${applied:-$(jq '.metadata.applied' <<<"$status")}
      if is_whole "$applied" <<<"$status"; then return 0; fi
    fi
    sleep 2
  done
  return 1
}

# The id by which Raft knows the voter at an address; nothing if there is none.
id_at() {
  carnax --output json cluster status |
    jq -r --arg address "$1" '[.metadata.nodes[] | select(.address == $address and .role == "voter") | .node] | max // empty'
}

address=$(terraform output -json metadata_addresses | jq -r --argjson index "$((node - 1))" '.[$index] // empty')
[[ -n $address ]] || fail "the root here has no metadata node $node: run this in environments/aws"
resource="module.metadata_cluster.aws_instance.node[\"$node\"]"

say "1/5 is the cluster whole?"
wait_until_whole 60 || fail "it is not: three voters must answer and be up to date before one is taken away"
id=$(id_at "$address")
[[ -n $id ]] || fail "no voter has the address $address"

say "2/5 what would be replaced?"
plan=$(mktemp)
trap 'rm -f "$plan"' EXIT
terraform plan -input=false -out="$plan" -replace="$resource" "$@" >&2
# Whatever else waits to be applied must not take a second node, or any volume, with it.
others=$(terraform show -json "$plan" | jq -r --arg resource "$resource" '
  .resource_changes[]
  | select((.type == "aws_instance" and .address != $resource and (.change.actions | index("delete")))
    or (.type == "aws_ebs_volume" and (.change.actions | index("delete")))) | .address')
[[ -z $others ]] || fail "the plan would also take away: $others"

say "3/5 leadership goes elsewhere"
for _ in $(seq 30); do
  leader=$(carnax --output json cluster status | jq -r '.metadata.leader // empty') || leader=""
  [[ -n $leader && $leader != "$id" ]] && break
  carnax cluster transfer-leader >&2 || true
  sleep 1
done
[[ -n $leader && $leader != "$id" ]] || fail "node $id still leads"

say "4/5 node $node (id $id, $address) is replaced"
terraform apply -input=false "$plan" >&2

say "5/5 does it come back and catch up?"
wait_until_whole "$deadline" || fail "not within $deadline s; look at its console output, and replace no other node"
[[ $(id_at "$address") == "$id" ]] || fail "another disk answers at $address: the volume did not come along"
say "done: node $node is back with its volume, and the cluster is whole"
