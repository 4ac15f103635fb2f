# Sourced by deeper.sh and cores.sh, which have one core a process and record the teacher by seed: settings, and `record`.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$here/../../.venv/bin:$PATH" OMP_NUM_THREADS=1
cd "${WORK:-$here/../..}"
jobs=${JOBS:-2} out=runs/evidence

record() {  # NAME, and what is recorded of record.yaml's teacher: in as many processes as JOBS
  local name=$1 part parts=() pids=()
  shift
  [ ! -f "$out/$name/index.json" ] || return 0
  for part in $(seq "$jobs"); do
    parts+=("$out/$name-part-$part")
    counterpoise record "$here/record.yaml" --quiet --views epochs "$@" --part "$part/$jobs" --out "${parts[-1]}" >/dev/null &
    pids+=($!)
  done
  for part in "${pids[@]}"; do wait "$part"; done
  counterpoise store merge "${parts[@]}" --out "$out/$name" >/dev/null
  rm -r "${parts[@]}"
}
