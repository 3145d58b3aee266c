# The image of both roles: `bv-run` on the bonevalue.yaml and the modules that were copied in.
#
#   docker build -t bonevalue .
#   docker run --rm -v ./bonevalue.yaml:/bonevalue/bonevalue.yaml:ro -v ./modules:/bonevalue/modules:ro bonevalue
#
# The file that comes with the repository listens on the container's own loopback: it shows that the image works,
# and is to be replaced by one's own. /bonevalue is writable for the user, for a database beside the file.

FROM python:3.12-slim AS build

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY runtime runtime
COPY server server
RUN python -m venv /opt/bonevalue \
    && /opt/bonevalue/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.12-slim

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /bonevalue --shell /usr/sbin/nologin bonevalue \
    && install --directory --owner=bonevalue --group=bonevalue /bonevalue
COPY --from=build /opt/bonevalue /opt/bonevalue
ENV PATH=/opt/bonevalue/bin:$PATH \
    PYTHONUNBUFFERED=1

WORKDIR /bonevalue
COPY modules modules
COPY examples examples
COPY bonevalue.yaml ./

USER 10001:10001
EXPOSE 8008/tcp 8008/udp
ENTRYPOINT ["bv-run"]
CMD ["bonevalue.yaml"]
