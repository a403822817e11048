#!/usr/bin/env bash
# Checks the templates without an account: formatting, validity of both roots, our policies, shell and Docker files. What
# cannot be done on this machine is left out, and said. It changes no file of the tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

left_out=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

has() { command -v "$1" >/dev/null 2>&1; }

# `init` asks the registry, unless a folder on this machine mirrors the provider.
configure_terraform() {
  local mirror
  mirror=$(scripts/provider-mirror.sh)
  if [[ -n $mirror ]]; then
    printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$mirror" >"$scratch/terraform.rc"
    export TF_CLI_CONFIG_FILE=$scratch/terraform.rc
  fi
}

validate() {
  local root=$1
  # A copy, so that neither a lock file nor a state of the user's is touched.
  cp -r modules environments "$scratch/"
  rm -rf "$scratch/environments/$root/.terraform" "$scratch/environments/$root/.terraform.lock.hcl"
  if ! terraform -chdir="$scratch/environments/$root" init -backend=false -input=false -no-color >"$scratch/init.log" 2>&1; then
    if grep -q "Failed to query available provider packages\|Failed to install provider" "$scratch/init.log"; then
      left_out+=("terraform validate of environments/$root (no provider: no network, and CARNAX_TERRAFORM_MIRROR names no folder with it)")
      return
    fi
    cat "$scratch/init.log" >&2
    return 1
  fi
  terraform -chdir="$scratch/environments/$root" validate -no-color
}

python3 lint_policies.py

if has terraform; then
  configure_terraform
  terraform fmt -check -recursive -diff .
  for root in localstack aws; do
    validate "$root"
  done
else
  left_out+=("terraform fmt and validate (terraform is not installed)")
fi

if has shellcheck; then
  shellcheck check.sh scripts/*.sh package/*.sh
else
  left_out+=("shellcheck (not installed)")
fi

if has hadolint; then
  hadolint docker/*.Dockerfile
else
  left_out+=("hadolint (not installed)")
fi

for reason in "${left_out[@]}"; do
  echo "left out: $reason"
done
echo "infra: what could be checked here is right"
