#!/usr/bin/env bash
# What a weaker and a stronger teacher change (teachers.yaml), then the stronger one over fresh seeds (stronger.yaml), on two CPU
# cores in about three hours: a wrn_16_2 trained for 8 epochs only, the given one, and a resnet32x4. That is
# teachers/resnet32x4-annealed.safetensors: recipe A broken off after 104 epochs (gpu.sh), and three more in which the learning
# rate falls to zero:
#
#   counterpoise train recipes/cifar100/teachers/resnet32x4.yaml --train.precision bf16 --train.epochs 3 \
#     --student.checkpoint runs/evidence-gpu/teacher-resnet32x4/checkpoints/last.safetensors \
#     --train.schedule.name poly --train.schedule.power 1 --out runs/evidence/teacher-stronger
#   python benchmarks/evidence/keep.py runs/evidence/teacher-stronger benchmarks/evidence/teachers/resnet32x4-annealed.safetensors
#
# WORK and JOBS as for cpu.sh; the same command goes on.
set -euo pipefail
source "$(dirname "$0")/record.sh"

if [ ! -f $out/teacher-weaker/summary.json ]; then
  resume=()
  [ ! -d $out/teacher-weaker ] || resume=(--resume)
  counterpoise train "$here/../../recipes/cifar100/teachers/wrn_40_2.yaml" --student.model cifar/wrn_16_2 --train.epochs 8 \
    --train.schedule.name one_cycle --train.precision bf16 --out $out/teacher-weaker --quiet "${resume[@]}"
fi
for seed in 11 12 13; do
  record store-seed-$seed --epochs 8 --seed $seed
  record store-weaker-seed-$seed --epochs 8 --seed $seed --teacher.checkpoint $out/teacher-weaker
done
for table in teachers stronger; do
  [ $table = teachers ] && seeds="11 12 13" || seeds="14 15 16 17 18"
  for seed in $seeds; do
    record store-stronger-seed-$seed --epochs 8 --seed $seed --teacher.model cifar/resnet32x4 \
      --teacher.checkpoint "$here/teachers/resnet32x4-annealed.safetensors"
  done
  counterpoise compare "$here/$table.yaml" --jobs "$jobs" --quiet
  for kind in results table differences; do
    cp $out/$table/$kind.csv "$here/../results/evidence_${table}_$kind.csv"
  done
done
