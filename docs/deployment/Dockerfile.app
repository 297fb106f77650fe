# An app with durable servers: docker build -f Dockerfile.app --build-arg RUST=with .
#
#   RUST=without   the libraries come from the package's archive for this system, or from the directory that
#                  DURABLE_HANDOFF_NIF names in the build; the image that builds has no Rust
#   RUST=with      cargo builds them; for a dependency on the git repository
ARG RUST=without
# The image that builds and the one that runs have the same C library.
ARG ELIXIR=hexpm/elixir:1.19.4-erlang-28.1-debian-bookworm-20251117-slim
ARG BASE=debian:bookworm-slim

FROM ${ELIXIR} AS tools-without
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git

FROM tools-without AS tools-with
RUN apt-get install -y --no-install-recommends build-essential curl
RUN curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
ENV PATH=/root/.cargo/bin:$PATH
ENV DURABLE_HANDOFF_BUILD=1

FROM tools-${RUST} AS build
ENV MIX_ENV=prod LANG=C.UTF-8
WORKDIR /app
RUN mix local.hex --force && mix local.rebar --force
COPY mix.exs mix.lock ./
COPY config config
# Before the code: a change of the app does not build the libraries again.
RUN mix deps.get --only prod && mix deps.compile
# Without a folder rel, leave out its line.
COPY rel rel
COPY lib lib
# Phoenix needs more:
# COPY priv priv
# COPY assets assets
# RUN mix compile && mix assets.setup && mix assets.deploy
RUN mix compile && mix release my_app

FROM ${BASE} AS app
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libncurses6 libstdc++6 openssl && \
    rm -rf /var/lib/apt/lists/*
# Without PHX_SERVER a release with Phoenix does not start its endpoint.
ENV LANG=C.UTF-8 PHX_SERVER=true
WORKDIR /app
RUN useradd --system --uid 65532 --home-dir /app my_app
COPY --from=build --chown=65532:65532 /app/_build/prod/rel/my_app ./
USER 65532:65532
# docker stop -t 120: Docker itself waits for ten seconds only.
STOPSIGNAL SIGTERM
# The VM takes the place of the start script, so it is process 1 and gets the signal.
CMD ["/app/bin/my_app", "start"]
