# `just` lists what can be done here.

_default:
    @just --list

# Every check of CI, with the same command; changes nothing.
check:
    .ci/run

# Formats and applies what clippy can mend by itself; changes files.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# One metadata node and one frontend in one process, on the folder data/.
dev:
    cargo run --release --bin carnax -- dev --dir data --listen 127.0.0.1:8080

# Append, end-to-end and catch-up against the server that `just dev` started, beside the raw object store.
bench *ARGS:
    cargo run --release --bin carnax -- bench {{ARGS}}

# Real processes, killed and checked, at full size: `just prove --input flights.ndjson.gz` (docs/proving-it.md).
prove *ARGS:
    cargo run --release -p carnax-acceptance -- {{ARGS}}
