# One static binary in an empty image, run by nobody in particular. docs/deploy.md says how to use it;
# `cargo xtask container` runs what stands here without a container engine.

# The toolchain of rust-toolchain.toml.
FROM rust:1.95.0-slim-bookworm AS build
# The file would have rustup fetch what only development needs.
ENV RUSTUP_TOOLCHAIN=1.95.0 \
    CARGO_TARGET_DIR=/target \
    OUT=/out
# The allocator is C, and is built for the same libc as the rest.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    cargo build --release --locked --package jitney --bin jitney --target "$(uname -m)-unknown-linux-musl" \
    && mkdir -p "$OUT/data" "$OUT/etc/jitney" \
    && cp "$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-musl/release/jitney" "$OUT/jitney"

FROM scratch
LABEL org.opencontainers.image.title="jitney" \
      org.opencontainers.image.description="A durable micro-batching job dispatcher" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# A fresh volume on /data takes its owner from here.
COPY --from=build --chown=65532:65532 /out/ /
USER 65532:65532
# Other containers must reach it, which the server refuses until somebody says JITNEY_NO_AUTH=true (or, later,
# gives it keys): the image does not say that for you.
ENV JITNEY_LISTEN=0.0.0.0:8080 \
    JITNEY_DATA=/data
# ./jitney.toml is read if it is there.
WORKDIR /etc/jitney
VOLUME /data
EXPOSE 8080
# Alive, not ready: a server that reads its log, drains, or has a full disk is not helped by a restart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/jitney", "health"]
ENTRYPOINT ["/jitney"]
CMD ["serve"]
