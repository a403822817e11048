# The command line. Linted only: no container engine was at hand where this was written.
#
#   docker build -f infra/docker/carnax.Dockerfile -t carnax .
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin carnax

FROM debian:bookworm-slim
# Certificate authorities are wanted as of the day of the build, not as of a version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 890 --create-home --home-dir /var/lib/carnax carnax
COPY --from=build /build/target/release/carnax /usr/local/bin/carnax
USER 890
ENTRYPOINT ["/usr/local/bin/carnax"]
