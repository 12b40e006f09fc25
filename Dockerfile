# The operator's image: Python, Lifeboat, and what the engines `qemu` and `ceph` need. docs/how-to/image.md says how to build it.
#
# BASE is any Debian 12. The tag moves with Debian's security updates; to pin it to the byte, write the digest that your
# registry shows: --build-arg BASE=debian:12-slim@sha256:…
ARG BASE=debian:12-slim

FROM ${BASE} AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-venv
# Where the packages come from, if not from the usual place: pip reads these.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
RUN python3 -m venv --without-pip /opt/lifeboat \
    && /build/bin/pip --python /opt/lifeboat/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/pip --python /opt/lifeboat/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Lifeboat" \
      org.opencontainers.image.description="A Kubernetes operator for disaster recovery of servers across availability zones" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates python3 qemu-system-common qemu-system-x86 qemu-utils \
        python3-rados python3-rbd qemu-block-extra \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=builder /opt/lifeboat /opt/lifeboat
ENV PATH=/opt/lifeboat/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/lifeboat \
    LIFEBOAT_ZONES=/var/lib/lifeboat/zones
# Nobody in /etc/passwd: a number is what Kubernetes can tell to be no root.
USER 65532:65532
WORKDIR /var/lib/lifeboat
EXPOSE 8080
ENTRYPOINT ["lifeboat"]
CMD ["operator"]
