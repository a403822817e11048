# The metadata node. Linted only: no container engine was at hand where this was written.
#
#   docker build -f infra/docker/metadata-node.Dockerfile -t carnax-metadata-node .
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin carnax-metadata-node

FROM debian:bookworm-slim
# Certificate authorities are wanted as of the day of the build, not as of a version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 890 --create-home --home-dir /var/lib/carnax carnax
COPY --from=build /build/target/release/carnax-metadata-node /usr/local/bin/carnax-metadata-node
USER 890
VOLUME /var/lib/carnax
# 7001: other nodes and frontends. 7101: health and metrics.
EXPOSE 7001 7101
ENTRYPOINT ["/usr/local/bin/carnax-metadata-node"]
