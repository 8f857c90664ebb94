# The image of the service: `docker build --tag register-ticket-api .`. docs/containers.md says how to run it, and how
# the base images are pinned.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build

# The tag above and rust-toolchain.toml name the same release. That file stays out of the way of rustup, which would
# fetch what the file asks for and the build does not need.
COPY rust-toolchain.toml /tmp/
RUN grep -xF "channel = \"$RUST_VERSION\"" /tmp/rust-toolchain.toml

# All dependencies, with an empty library and build script in place of ours: this layer is built anew only when these
# files change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/service \
    && touch src/lib.rs benches/service/main.rs \
    && echo 'fn main() {}' > build.rs \
    && cargo build --config .cargo/static.toml --locked --release --lib

COPY build.rs ./
COPY src src
COPY sql sql
# Cargo compares times, and the files may be older than the empty ones that were built.
RUN touch build.rs src/lib.rs \
    && cargo build --config .cargo/static.toml --locked --release \
    && cp target/*/release/register-ticket-api . \
    && mkdir data

# The program needs no library.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /build/register-ticket-api /usr/local/bin/
# A new volume takes its owner from the directory that it covers.
COPY --from=build --chown=65532:65532 /build/data /data
COPY --from=build --chown=65532:65532 /build/data /backups
# SQLite's default, data/tickets.db, lies in /data. So do temporary files: all else may be read-only.
ENV TMPDIR=/data
WORKDIR /
# By number, so that Kubernetes too sees that it is not root.
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["register-ticket-api", "healthcheck"]
ENTRYPOINT ["register-ticket-api"]
CMD ["serve"]

# Last, because they change with every commit.
ARG VERSION=
ARG REVISION=
ARG SOURCE=
# For /health.
ENV REVISION="$REVISION"
LABEL org.opencontainers.image.title="register-ticket-api" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION" \
    org.opencontainers.image.source="$SOURCE"
