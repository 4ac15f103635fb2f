#!/usr/bin/env bash
# The evidence on one GPU, in pieces of less than 9 minutes, in order of worth: the teacher resnet32x4 by recipe A, resnet8x4
# from it by fourteen methods and three seeds, the patient schedule, then resnet56 -> resnet20. Exit code 3 while something is
# left; so, with CIFAR-100 under data/cifar100:
#
#   until bash benchmarks/evidence/gpu.sh; do [ $? -eq 3 ] || break; done
#
# For a machine that forgets: what the next call needs to go on is left in OUT, as at most 8 files of less than 16 MiB; given
# back in IN (default: OUT) it is taken up. The teacher's store is too large for that and is recorded anew where it is missing.
# WORK is where data/ and runs/ are (default: the repository), MINUTES a piece's length, JOBS the runs at once on the card.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
recipes=$here/../../recipes
export PATH="$here/../../.venv/bin:$PATH"
work=${WORK:-$here/../..}
OUT=$(mkdir -p "${OUT:-$work/runs/evidence-gpu/carry}" && cd "${OUT:-$work/runs/evidence-gpu/carry}" && pwd)
IN=$(cd "${IN:-$OUT}" && pwd)
cd "$work"
jobs=${JOBS:-3} out=runs/evidence-gpu
until=$((SECONDS + $(awk "BEGIN { print int(60 * ${MINUTES:-8}) }")))
mkdir -p $out/teachers

take_up() {  # what an earlier call left
  local file
  cp -n "$IN"/*.safetensors $out/teachers/ 2>/dev/null || true
  for file in resnet32x4 resnet56; do  # not those of other tables
    cp -n "$here/teachers/$file.safetensors" $out/teachers/ 2>/dev/null || true
  done
  if compgen -G "$IN/begun.tar.*" >/dev/null; then cat "$IN"/begun.tar.* | tar -x --skip-old-files; fi
  for file in "$IN"/*-results.csv; do
    [ -f "$file" ] || continue
    file=${file#"$IN"/}
    mkdir -p "$out/${file%-results.csv}"
    cp -n "$IN/$file" "$out/${file%-results.csv}/results.csv"
  done
}

leave() {  # finished runs are rows; of those begun the last checkpoint; teachers in half precision
  local table folder begun=()
  rm -f "$OUT"/begun.tar.* "$OUT"/*-results.csv
  for table in $out/*/results.csv; do
    [ ! -f "$table" ] || cp "$table" "$OUT/$(basename "$(dirname "$table")")-results.csv"
  done
  cp $out/teachers/*.safetensors "$OUT/" 2>/dev/null || true
  while read -r folder; do
    folder=$(dirname "$(dirname "$folder")")
    [ -f "$folder/summary.json" ] || begun+=("$folder")
  done < <(find $out -path '*/checkpoints/last.safetensors')
  if [ ${#begun[@]} -gt 0 ]; then
    for folder in "${begun[@]}"; do
      find "$folder" -type f ! -name best.safetensors ! -name .lock
      [ ! -f "$folder.origin.json" ] || echo "$folder.origin.json"
    done | tar -c -T - | split -b 15M - "$OUT/begun.tar."
  fi
  ls -l "$OUT"
}
trap leave EXIT

left() { echo $(((until - SECONDS) > 5 ? until - SECONDS : 0)); }
in_time() {  # a command as long as there is time; 3 where it was not enough
  local status=0
  [ "$(left)" -gt 0 ] || return 3
  timeout --foreground -s INT "$(left)" "$@" || status=$?
  [ $status -ne 124 ] && [ $status -ne 130 ] || return 3
  return $status
}

teacher() {  # NAME: trained by recipe A, kept in half precision with its recipe in the metadata
  [ ! -f "$out/teachers/$1.safetensors" ] || return 0
  local resume=()
  [ ! -d "$out/teacher-$1" ] || resume=(--resume)
  in_time counterpoise train "$recipes/cifar100/teachers/$1.yaml" --out "$out/teacher-$1" --train.precision bf16 \
    --train.evaluate_every 10 --train.log_every 500 --quiet "${resume[@]}" || return $?
  python "$here/keep.py" "$out/teacher-$1" "$out/teachers/$1.safetensors"
}
store() {  # NAME: every view of every image
  [ ! -f "$out/store-$1/index.json" ] || return 0
  in_time counterpoise record "$recipes/cifar100/resnet56-resnet20/kd.yaml" --teacher.model "cifar/$1" --train.batch_size 2000 \
    --teacher.checkpoint "$out/teachers/$1.safetensors" --train.precision bf16 --views complete --out "$out/store-$1" --quiet
}
table() {  # NAME of the compare file, runs at once
  [ "$(left)" -gt 0 ] || return 3
  local status=0 minutes
  minutes=$(awk "BEGIN { print $(left) / 60 }")
  counterpoise compare "$here/gpu-$1.yaml" --minutes "$minutes" --jobs "$2" --pool || status=$?
  [ ! -f "$out/$1/results.csv" ] || for file in results table differences; do
    cp "$out/$1/$file.csv" "$here/../results/evidence_gpu_$1_$file.csv"
  done
  return $status
}

take_up
step() { "$@" || { status=$?; [ $status -ne 3 ] || echo "Left: $*, and what follows it."; exit $status; }; }
step teacher resnet32x4
step store resnet32x4
step table resnet8x4 "$jobs"
step table patient "$jobs"
step teacher resnet56
step store resnet56
step table resnet20 "$jobs"
echo "All is done: benchmarks/results/evidence_gpu_*.csv"
