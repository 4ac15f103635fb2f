"""python ray_train.py RUN_FILE FOLDER [WORKERS]: a run under Ray Train, a process a GPU where the cluster has some."""

import sys
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict[str, str]) -> None:
    """In each process, which Ray has joined with the others."""
    import counterpoise
    from counterpoise import config

    values = config.merge(config.read(Path(settings["run"])), {"out": settings["out"]})
    counterpoise.distill(values, resume=True)


if __name__ == "__main__":
    run, out = (str(Path(argument).resolve()) for argument in sys.argv[1:3])
    Path(out).mkdir(parents=True, exist_ok=True)  # on a file system that all machines see
    ray.init()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    TorchTrainer(
        work,
        train_loop_config={"run": run, "out": out},
        scaling_config=ScalingConfig(num_workers=int(sys.argv[3]) if len(sys.argv) > 3 else gpus, use_gpu=gpus > 0),
        run_config=RunConfig(storage_path=str(Path(out).parent), failure_config=FailureConfig(max_failures=3)),
    ).fit()
