#!/usr/bin/env bash
# Uploads binaries for metadata nodes and process frontends, with their checksums, to where the machines install them from.
#
#   publish-artifacts.sh BUCKET VERSION ARCHITECTURE [FOLDER]      FOLDER holds the binaries: target/release by default
set -euo pipefail

if [[ $# -lt 3 || $# -gt 4 ]]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
bucket=$1 version=$2 architecture=$3 folder=${4:-target/release}
binaries=(carnax-metadata-node carnax-frontend carnax)

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
for binary in "${binaries[@]}"; do
  install -m 0755 "$folder/$binary" "$staging/$binary"
done
(cd "$staging" && sha256sum "${binaries[@]}" >SHA256SUMS)

# The checksums go last: a machine that starts in the middle finds none, and tries again.
destination=s3://$bucket/artifacts/$version/$architecture
aws s3 cp --only-show-errors --recursive --exclude SHA256SUMS "$staging" "$destination"
aws s3 cp --only-show-errors "$staging/SHA256SUMS" "$destination/SHA256SUMS"
echo "published $destination"
