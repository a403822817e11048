#!/usr/bin/env bash
# Makes the zip that Lambda takes: the program `bootstrap`, for the architecture of this machine, with cargo alone.
#
#   infra/package/lambda.sh [ZIP]        (default: target/lambda/carnax-lambda-ARCHITECTURE.zip)
#
# PACKAGE names another function of this workspace, as carnax-woken-consumer. PROFILE=dev packs a debug build, for tests.
# Another architecture than this machine's: `cargo lambda build --release --arm64`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# What Amazon Linux 2023, the system of `provided.al2023`, has.
GLIBC_MAX=2.34

fail() {
  echo "lambda.sh: $*" >&2
  exit 1
}

case $(uname -sm) in
  "Linux x86_64") architecture=x86_64 ;;
  "Linux aarch64") architecture=arm64 ;;
  *) fail "this machine is no Linux on x86_64 or arm64: use cargo lambda (https://www.cargo-lambda.info)" ;;
esac
for tool in objdump python3; do
  command -v "$tool" >/dev/null || fail "$tool is missing: install binutils and Python 3"
done

package=${PACKAGE:-carnax-lambda}
profile=${PROFILE:-release}
folder=${CARGO_TARGET_DIR:-target}
cargo build --quiet --profile "$profile" -p "$package" --bin "$package"
program=$folder/$([[ $profile == dev ]] && echo debug || echo "$profile")/$package

newest=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
[[ $(printf '%s\n%s\n' "$newest" "$GLIBC_MAX" | sort -V | tail -n 1) == "$GLIBC_MAX" ]] \
  || fail "the program needs glibc $newest, and Lambda has $GLIBC_MAX: build on an older system, or use cargo lambda"

zip=${1:-$folder/lambda/$package-$architecture.zip}
mkdir -p "$(dirname "$zip")"
# The same program gives the same bytes, so that a template sees a change only where there is one.
python3 - "$program" "$zip" <<'PYTHON'
import sys, zipfile

program, path = sys.argv[1:]
entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
entry.external_attr = 0o755 << 16
entry.compress_type = zipfile.ZIP_DEFLATED
with open(program, "rb") as source, zipfile.ZipFile(path, "w") as archive:
    archive.writestr(entry, source.read(), compresslevel=9)
PYTHON
printf '%s  %s  %d bytes (the program: %d), glibc %s\n' "$zip" "$architecture" "$(stat -c %s "$zip")" "$(stat -c %s "$program")" "$newest"
