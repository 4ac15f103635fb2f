#!/usr/bin/env bash
# Several labels a picture: alone, KD and Balance over three seeds on digit pairs, and on CIFAR-100 with its fine and coarse labels at
# once. One thread; TABLES names one of the two. Needs CIFAR-100 under data/cifar100 and its teacher's weights under data/teachers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/../../.venv/bin:$PATH" OMP_NUM_THREADS=1
cd "${WORK:-$here/../..}"
for name in ${TABLES:-pairs cifar100}; do
  if [ "$name" = cifar100 ] && [ ! -e data/cifar100-both/labels.csv ]; then
    python "$here/multilabel_table.py" data/cifar100 data/cifar100-both
    python "$here/multilabel_teacher.py" data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors \
      data/cifar100-both/teacher.safetensors
  fi
  out=runs/evidence/multilabel-$name
  if [ "$name" = pairs ]; then
    [ -e "$out-teacher/summary.json" ] || counterpoise train "$here/multilabel-pairs-teacher.yaml"
  else
    counterpoise record "$here/multilabel-cifar100-record.yaml" --out "$out-store"
  fi
  counterpoise compare "$here/multilabel-$name.yaml" --jobs 1 --quiet
  for table in results table differences; do
    cp "$out/$table.csv" "$here/../results/multilabel_${name}_$table.csv"
  done
done
