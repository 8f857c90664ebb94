# The image of the service: `docker build --tag register-ticket-api .`. See docs/containers.md for how to run it and how the base
# images are pinned.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build

# Checks that the tag above and rust-toolchain.toml name the same release. The file is copied elsewhere, because rustup would
# otherwise download components that the build does not need.
COPY rust-toolchain.toml /tmp/
RUN grep -xF "channel = \"$RUST_VERSION\"" /tmp/rust-toolchain.toml

# Builds the dependencies with an empty library and build script instead of ours: this layer is rebuilt only when these files
# change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/service \
    && touch src/lib.rs benches/service/main.rs \
    && echo 'fn main() {}' > build.rs \
    && cargo build --config .cargo/static.toml --locked --release --lib

COPY build.rs ./
COPY src src
COPY sql sql
# Cargo compares modification times, and our files may be older than the empty ones.
RUN touch build.rs src/lib.rs \
    && cargo build --config .cargo/static.toml --locked --release \
    && cp target/*/release/register-ticket-api . \
    && mkdir data

# The program is static and needs no libraries.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /build/register-ticket-api /usr/local/bin/
# A new volume inherits its owner from the directory that it covers.
COPY --from=build --chown=65532:65532 /build/data /data
COPY --from=build --chown=65532:65532 /build/data /backups
# SQLite's default, data/tickets.db, is in /data. So are temporary files: everything else can be read-only.
ENV TMPDIR=/data
WORKDIR /
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["register-ticket-api", "healthcheck"]
ENTRYPOINT ["register-ticket-api"]
CMD ["serve"]

# At the end, because they change with every commit.
ARG VERSION=
ARG REVISION=
ARG SOURCE=
# Shown by /health.
ENV REVISION="$REVISION"
LABEL org.opencontainers.image.title="register-ticket-api" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
