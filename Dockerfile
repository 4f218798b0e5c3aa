# A server of one model, on CPUs: docker build -t embedsmith . && docker run --rm -p 8000:8000 --read-only --tmpfs /tmp
#   -v "$PWD/my-model:/model:ro" embedsmith /model --host 0.0.0.0
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY embedsmith embedsmith
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
      "$(grep '^torch==' constraints.txt)" \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[serve]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin embedsmith
COPY --from=build /venv /venv
# What libraries keep goes where the only writable folder is.
ENV PATH=/venv/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/cache HF_HOME=/tmp/hub PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["embedsmith", "serve"]
