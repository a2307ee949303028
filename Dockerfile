# duo_unlearn in a container, without the developers' tools and without root. CONTRIBUTING.md says what has hashes.
#
#     docker build -t duo_unlearn .                          # torch for CPUs
#     docker build -t duo_unlearn --build-arg TORCH=cu130 .  # or one of the CUDA builds of PyTorch's index
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/duo/bin:$PATH
RUN python -m venv /opt/duo
WORKDIR /src
# What changes least comes first: a change of the package builds its own layer alone.
COPY requirements-torch.txt ./
RUN pip install --no-deps --index-url "$TORCH_INDEX" -r requirements-torch.txt
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock \
    && pip install --extra-index-url "$TORCH_INDEX" -r requirements-torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}-slim
# Any user may write here, so `--user "$(id -u)"` leaves files that are yours.
RUN useradd --uid 1000 --home-dir /work duo && install --directory --mode 1777 /work
COPY --from=build /opt/duo /opt/duo
ENV PATH=/opt/duo/bin:$PATH HOME=/work
USER 1000
WORKDIR /work
ENTRYPOINT ["duo"]
CMD ["demo"]
