#!/usr/bin/env bash
# Where the reverse term helps and where it does not, after cpu.sh and with the values that its search has chosen: 10% of the
# training images, the rules and hosts of Balance that were not picked, a schedule of 60 epochs, and two networks for devices.
# Some 10 minutes of a GPU; on two cores two days. Settings as for cpu.sh; exit code 3 while something is left. TABLES names
# others, as cpu.sh does for its own two.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/../../.venv/bin:$PATH" OMP_NUM_THREADS=1
cd "${WORK:-$here/../..}"
out=runs/evidence
until=$((SECONDS + $(awk "BEGIN { print int(60 * ${MINUTES:-8}) }")))
for name in ${TABLES:-few-10 device-mobilenetv2 family device-resnet8x4 long}; do
  status=0
  left=$(awk "BEGIN { print ($until - $SECONDS) / 60 }")
  [ "$((until - SECONDS))" -gt 5 ] || { echo "Left: $name, and what follows it."; exit 3; }
  counterpoise compare $out/$name.yaml --minutes "$left" --jobs "${JOBS:-2}" --quiet || status=$?
  if [ -f $out/$name/results.csv ]; then
    for table in results table differences; do
      cp $out/$name/$table.csv "$here/../results/evidence_${name}_$table.csv"
    done
  fi
  [ $status -eq 0 ] || { echo "Left: the rest of $name, and what follows it."; exit $status; }
done
echo "All is done: benchmarks/results/evidence_*.csv"
