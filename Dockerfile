# docker build -t gan_jax .            CPU
# docker build -t gan_jax --build-arg EXTRA=cuda12 .   GPU hosts with the NVIDIA container toolkit
FROM python:3.11-slim
ARG EXTRA=
WORKDIR /gan_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gan_jax gan_jax
COPY experiments experiments
RUN pip install --no-cache-dir -c constraints.txt -e ".${EXTRA:+[$EXTRA]}"
ENTRYPOINT ["python", "-m", "experiments.train"]
CMD ["--workdir=/runs/digits"]
