# The frontend. Linted only: no container engine was at hand where this was written.
#
#   docker build -f infra/docker/frontend.Dockerfile -t carnax-frontend .
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin carnax-frontend

FROM debian:bookworm-slim
# Certificate authorities are wanted as of the day of the build, not as of a version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 890 --create-home --home-dir /var/lib/carnax carnax
COPY --from=build /build/target/release/carnax-frontend /usr/local/bin/carnax-frontend
USER 890
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/carnax-frontend"]
