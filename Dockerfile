# The images of mcpfleet, one target each: operator, sandbox-server, chat-worker, bridge; and node and python, in which packages of npx and
# uvx run (the chart's stdio.images), for whoever wants to build those, too.
#   docker build --target operator --tag ghcr.io/mcpfleet/operator:0.1.0 .
# An image holds one static binary (that of the bridge two: the activator runs from it) and the CA certificates: no shell, no libc, no package manager.
# BUILDER is any image with Rust, a C compiler and CA certificates; NODE one with Node.js and npm, PYTHON one with Python and pip, both of
# Debian: others serve where registries cannot be reached.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG NODE=docker.io/library/node:24-bookworm-slim
ARG PYTHON=docker.io/library/python:3.13-slim-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# Static with the GNU target, so that it runs in an empty image and still resolves names as glibc does.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" --bins \
        --package operator --package sandbox-server --package chat-worker --package bridge --package activator \
    && mkdir /out && (cd "target/$target/release" && cp operator sandbox-server chat-worker bridge activator /out/) \
    && rm -rf target
# What the images share.
RUN mkdir -p /root-fs/etc/ssl/certs /root-fs/tmp /root-fs/app \
    && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && echo 'mcpfleet:x:1000:1000::/tmp:/sbin/nologin' > /root-fs/etc/passwd \
    && echo 'mcpfleet:x:1000:' > /root-fs/etc/group \
    && chown 1000:1000 /root-fs/app && chmod 1777 /root-fs/tmp

FROM scratch AS common
COPY --from=build /root-fs/ /
USER 1000:1000
WORKDIR /app
LABEL org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mcpfleet/mcpfleet"

FROM common AS operator
LABEL org.opencontainers.image.title="mcpfleet operator" \
      org.opencontainers.image.description="Runs fleets of MCP servers on Kubernetes and tells the truth about them"
COPY --from=build /out/operator /usr/bin/operator
ENTRYPOINT ["/usr/bin/operator"]

FROM common AS sandbox-server
LABEL org.opencontainers.image.title="mcpfleet sandbox-server" \
      org.opencontainers.image.description="SQLite over the Model Context Protocol"
COPY --from=build /out/sandbox-server /usr/bin/sandbox-server
# What a statement took is given back at once: what its allocator would hold free counts against the container's limit.
ENV MIMALLOC_PURGE_DELAY=0
ENTRYPOINT ["/usr/bin/sandbox-server"]

FROM common AS chat-worker
LABEL org.opencontainers.image.title="mcpfleet chat-worker" \
      org.opencontainers.image.description="A chat application over a set of MCP servers"
COPY --from=build /out/chat-worker /usr/bin/chat-worker
ENTRYPOINT ["/usr/bin/chat-worker"]

FROM common AS bridge
LABEL org.opencontainers.image.title="mcpfleet bridge" \
      org.opencontainers.image.description="Serves an MCP server of standard input and output over streamable HTTP"
COPY --from=build /out/bridge /out/activator /usr/bin/
ENTRYPOINT ["/usr/bin/bridge"]

# What npx needs, and git for packages that are installed from a repository.
FROM ${NODE} AS node
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="mcpfleet node" \
      org.opencontainers.image.description="Node.js and npm, for MCP servers that npx installs"
USER 1000:1000
ENTRYPOINT []

# What uvx needs.
FROM ${PYTHON} AS python
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir uv==0.13.9
LABEL org.opencontainers.image.title="mcpfleet python" \
      org.opencontainers.image.description="Python and uv, for MCP servers that uvx installs"
USER 1000:1000
ENTRYPOINT []
