# One image per service:
#   docker build --build-arg SERVICE=writer -t flow-aggregator/writer .
# BASE is any image with Python 3.11 or newer (python3 with venv on the PATH).
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ARG SERVICE
ARG UV_VERSION=0.13.9
RUN test -n "${SERVICE}" || { echo "pass --build-arg SERVICE=writer, consumer, reader, operator or cli" >&2; exit 1; }
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY libs libs
COPY services services
COPY operator operator
COPY cli cli
COPY dev/stack/pyproject.toml dev/stack/
COPY dev/load/pyproject.toml dev/load/
COPY dev/cluster/pyproject.toml dev/cluster/
# UV_SYSTEM_CERTS: trust the certificates that BASE trusts, such as those of a company proxy.
ENV UV_PROJECT_ENVIRONMENT=/app UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_SYSTEM_CERTS=1
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-editable --package "flowagg-${SERVICE}" \
    && ln -s "flowagg-${SERVICE}" /app/bin/service

FROM ${BASE}
ARG SERVICE
LABEL org.opencontainers.image.title="flow-aggregator/${SERVICE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app/bin/service"]
