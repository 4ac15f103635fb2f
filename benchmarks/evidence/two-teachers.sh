#!/usr/bin/env bash
# Two teachers, and each alone: see two-teachers.yaml. Two hours on one quiet core; goes on where it stopped.
# JOBS at once: two. WORK is where data/cifar100, data/teachers/cifar100-wrn_16_2.safetensors and runs/ are (default: the repository).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/../../.venv/bin:$PATH" OMP_NUM_THREADS=1
cd "${WORK:-$here/../..}"
out=runs/evidence given=data/teachers/cifar100-wrn_16_2.safetensors
mkdir -p $out
if [ ! -f $out/second-teacher/summary.json ]; then
  go_on=$([ -f $out/second-teacher/run.yaml ] && echo --resume || true)
  counterpoise train --data data/cifar100 --student.model cifar/wrn_16_2 --seed 7 --train.epochs 8 --train.batch_size 128 \
    --train.optimizer.learning_rate 0.2 --train.optimizer.nesterov true --train.schedule.name one_cycle \
    --train.evaluate_every 8 --out $out/second-teacher --quiet $go_on
fi
cat > $out/both.yaml <<END
data: {path: data/cifar100, source: cifar, views: {crop: none, flip: true}}
teachers:
  - {model: cifar/wrn_16_2, checkpoint: $given}
  - {checkpoint: $out/second-teacher}
student: {model: cifar/resnet8}
END
record() { counterpoise record "$@" --views complete --train.device cpu --quiet; }
views=(--data data/cifar100 --data.views.crop none --data.views.flip true --student.model cifar/resnet8)
record "${views[@]}" --teacher.model cifar/wrn_16_2 --teacher.checkpoint $given --out $out/two-teachers-first
record "${views[@]}" --teacher.checkpoint $out/second-teacher --out $out/two-teachers-second
record $out/both.yaml --out $out/two-teachers-both
counterpoise compare "$here/two-teachers.yaml" --jobs "${JOBS:-2}" "$@"
