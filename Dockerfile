# docker build -t gan_jax .                            CPU
# docker build -t gan_jax --build-arg EXTRA=cuda13 .   GPU hosts with the NVIDIA container toolkit
# docker run -v $PWD/runs:/runs gan_jax                 trains the default; or: gan_jax sample --workdir=/runs/digits ...
FROM python:3.13-slim
ARG EXTRA=
WORKDIR /gan_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gan_jax gan_jax
COPY experiments experiments
RUN pip install --no-cache-dir -c constraints.txt ".[sweep${EXTRA:+,$EXTRA}]"
ENTRYPOINT ["gan-jax"]
CMD ["train", "--workdir=/runs/digits"]
