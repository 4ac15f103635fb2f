# For a processor:   docker build -t counterpoise .
# For NVIDIA's GPUs: docker build -t counterpoise:cuda --build-arg TORCH=cu128 .
# A run:             docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" counterpoise distill photos.yaml
#                    (--gpus all --shm-size 8g with CUDA)
FROM python:3.11-slim
ARG TORCH=cpu
ARG EXTRAS=hf,onnx,openvino,plots,search
COPY constraints/tested.txt /tmp/counterpoise/constraints/
RUN pip install --no-cache-dir --constraint /tmp/counterpoise/constraints/tested.txt \
        --index-url "https://download.pytorch.org/whl/${TORCH}" torch torchvision
COPY pyproject.toml README.md LICENSE /tmp/counterpoise/
COPY src /tmp/counterpoise/src
RUN pip install --no-cache-dir --constraint /tmp/counterpoise/constraints/tested.txt "/tmp/counterpoise[${EXTRAS}]" \
    && rm -r /tmp/counterpoise
# Weights of timm and the Hub are kept where any user may write, and a volume may hold them.
ENV HOME=/cache HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch
RUN mkdir -m 1777 /cache
WORKDIR /work
ENTRYPOINT ["counterpoise"]
CMD ["--help"]
