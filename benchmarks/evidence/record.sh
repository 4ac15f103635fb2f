# Sourced by deeper.sh and cores.sh, with `here`, `jobs` and `out` set.

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
