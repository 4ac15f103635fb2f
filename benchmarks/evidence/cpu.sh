#!/usr/bin/env bash
# The evidence on two CPU cores, in pieces of less than 9 minutes: about 8 hours in all. Each call goes on where the last one
# stopped, says what is left, and exits with 3 while there is something; so:
#
#   ln -s /where/cifar-100-python data/cifar100; cp /where/cifar100-wrn_16_2.safetensors data/teachers/
#   until bash benchmarks/evidence/cpu.sh; do [ $? -eq 3 ] || break; done
#
# WORK is where data/ and runs/ are (default: the repository), MINUTES a piece's length, JOBS the processes at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/../../.venv/bin:$PATH" OMP_NUM_THREADS=1
cd "${WORK:-$here/../..}"
minutes=${MINUTES:-8} jobs=${JOBS:-2} out=runs/evidence
mkdir -p $out

record() {  # every view of every image, in as many processes as JOBS; killed when time is up, as any recording may be
  local part pids=() status=0 one
  for part in $(seq "$jobs"); do
    timeout $((minutes * 60)) counterpoise record "$here/record.yaml" --quiet --part "$part/$jobs" \
      --out "$out/store-part-$part-of-$jobs" &
    pids+=($!)
  done
  for one in "${pids[@]}"; do wait "$one" || status=$?; done
  return $status
}

if [ ! -f $out/store/index.json ]; then
  if record; then
    counterpoise store merge $out/store-part-*-of-"$jobs" --out $out/store
    rm -r $out/store-part-*
  else
    status=$?
    [ $status -eq 124 ] || exit $status
    du -sm $out/store-part-* | sed 's/\t/ MB of 1,620 in all: /'
  fi
  echo "Left: the rest of the store, the search, the comparisons on resnet8 and resnet20."
  exit 3
fi
if [ ! -f $out/resnet20.yaml ]; then
  counterpoise search "$here/search.yaml" --no-final --minutes "$minutes" --jobs "$jobs" || {
    status=$?
    echo "Left: the rest of the search, the comparisons on resnet8 and resnet20."
    exit $status
  }
  python "$here/choose.py" $out/search $out
  cp $out/search/search.csv "$here/../results/evidence_search.csv"
  echo "Left: the comparisons on resnet8 and resnet20."
  exit 3
fi
TABLES="resnet8 resnet20" WORK=$PWD exec bash "$here/map.sh"
