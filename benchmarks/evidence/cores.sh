#!/usr/bin/env bash
# What two CPU cores add to cpu.sh's tables in about four hours, without the complete store: for each seed the teacher's answers
# to that seed's own views are recorded. DIST with and without the reverse term at one setting (dist.yaml), float32 beside
# bfloat16 (precision.yaml), a quarter of the images (few-25.yaml), at the values that search.yaml has found; and 20 epochs at
# the setting of teachers.yaml (longer.yaml). WORK and JOBS as for cpu.sh; the same command goes on. TABLES names some of them.
set -euo pipefail
source "$(dirname "$0")/record.sh"

for table in ${TABLES:-dist precision few-25 longer}; do
  for seed in 11 12 13; do
    case $table in
      few-25) record few-25-seed-$seed --data.held_out 37500 --epochs 32 --seed $seed ;;
      longer) record longer-seed-$seed --epochs 20 --seed $seed ;;
      *) record store-seed-$seed --epochs 8 --seed $seed ;;
    esac
  done
  counterpoise compare "$here/$table.yaml" --jobs "$jobs" --quiet
  for kind in results table differences; do
    cp $out/$table/$kind.csv "$here/../results/evidence_${table}_$kind.csv"
  done
done
